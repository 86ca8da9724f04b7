"""Versioned documents: what is written is read, and everything else is one sentence."""

import json
from typing import ClassVar, Literal

import pytest

from thermal_search.documents import Document, Section
from thermal_search.errors import SearchError
from thermal_search.storage import Location


class Wheel(Section):
    radius: float


class Car(Document):
    REMEDY: ClassVar[str] = "build it again"
    version: Literal[3] = 3
    name: str
    wheels: tuple[Wheel, ...] = ()
    home: Location | None = None


@pytest.fixture
def path(tmp_path):
    return Location.of(tmp_path / "car.json")


def test_written_document_is_read_back(path):
    car = Car(name="Ø", wheels=(Wheel(radius=0.1), Wheel(radius=1)), home=Location.of("s3://b/c"))
    car.write(path)

    assert Car.read(path) == car
    assert json.loads(path.read_text())["home"] == "s3://b/c"


def test_missing_file_is_file_not_found(path):
    with pytest.raises(FileNotFoundError):
        Car.read(path)
    path.write_text("x")
    with pytest.raises(FileNotFoundError):
        Car.read(path / "car.json")


CONTENT = {"version": 3, "name": "a", "wheels": [{"radius": 1.0}], "home": None}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (CONTENT | {"version": 2}, "has version 2, but this release reads version 3"),
        (CONTENT | {"version": "3"}, "has version '3'"),
        (CONTENT | {"version": True}, "has version True"),
        (CONTENT | {"version": 3.0}, "has version 3.0"),
        ({"name": "a"}, "version: Field required"),
        (CONTENT | {"name": 1}, "name: Input should be a valid string, not 1"),
        (CONTENT | {"color": "red"}, "color: Extra inputs are not permitted"),
        ({"version": 3}, "name: Field required"),
        (CONTENT | {"wheels": [{"radius": "1"}]}, "wheels.0.radius: .*valid number"),
        (CONTENT | {"wheels": [{"radius": float("nan")}]}, "wheels.0.radius: .*finite"),
        (CONTENT | {"home": 3}, "home: .*a path or an address"),
        (CONTENT | {"home": "ftp://x/y"}, r"\(home: [^V].*ftp[^.]*[^.]\):"),
        ([CONTENT], "should be an object"),
        (None, "should be an object"),
    ],
)
def test_wrong_shape_is_one_sentence(path, content, fault):
    path.write_text(json.dumps(content))

    with pytest.raises(SearchError, match=fault) as caught:
        Car.read(path)
    assert str(caught.value).endswith("build it again.")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"version": 3, "name": "\xff"}']
)
def test_damaged_file_is_one_sentence(path, content):
    path.write_bytes(content)

    with pytest.raises(SearchError, match=r"damaged .*build it again\.$"):
        Car.read(path)


def test_folder_in_its_place_is_one_sentence(path, tmp_path):
    (tmp_path / "car.json").mkdir()

    with pytest.raises(SearchError, match="cannot be read"):
        Car.read(path)
