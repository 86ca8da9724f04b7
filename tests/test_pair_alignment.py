"""What a dataset's manifest says of its alignment, and which alignments compare."""

import itertools
import json

import numpy as np
import pytest
from recordings import folders

from thermal_search.data.manifest import read_manifest
from thermal_search.errors import DatasetError
from thermal_search.pair_alignment import PairAlignment
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings

IDENTITY = np.identity(3).tolist()
MATRIX = tuple(np.identity(3).flatten().tolist())
OTHER = (*MATRIX[:2], 3.0, *MATRIX[3:])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("source") / "raw", 24, gap_every=8, size=(32, 32))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, PairAlignment(method="none", layout="folders")),
        (
            {"align": "center", "fields_of_view": (40.0, 50.0)},
            PairAlignment(method="center", layout="folders", fields_of_view=(40.0, 50.0)),
        ),
        (
            {"align": "homography:{folder}/h.json"},
            PairAlignment(method="homography", layout="folders", homographies=(MATRIX,)),
        ),
    ],
)
def test_prepared_dataset_knows_its_alignment(source, tmp_path, flags, expected):
    (tmp_path / "h.json").write_text(json.dumps({"*": IDENTITY}))
    flags = {
        name: value.format(folder=tmp_path) if isinstance(value, str) else value
        for name, value in flags.items()
    }
    prepare(source, tmp_path / "data", PreparationSettings(size=32, workers=1, **flags))

    assert read_manifest(tmp_path / "data").pair_alignment == expected


ALIGNMENTS = [
    PairAlignment(method="none", layout="flir-v1"),
    PairAlignment(method="none", layout="flir-aligned"),
    PairAlignment(method="table", layout="flir-v1"),
    PairAlignment(method="auto", layout="flir-v1"),
    PairAlignment(method="center", layout="flir-v2", fields_of_view=(45.0, 52.8)),
    PairAlignment(method="center", layout="flir-v2", fields_of_view=(45.0, 60.0)),
    PairAlignment(method="homography", layout="folders", homographies=(MATRIX,)),
    PairAlignment(method="homography", layout="folders", homographies=(OTHER,)),
]


@pytest.mark.parametrize(("one", "other"), [*itertools.combinations(ALIGNMENTS, 2)])
def test_different_alignments_do_not_compare_and_read_differently(one, other):
    assert not one.compares_with(other)
    assert not other.compares_with(one)
    assert str(one) != str(other)
    assert one.compares_with(one)


def test_layout_matters_only_if_nothing_was_aligned():
    table, copied = ALIGNMENTS[2], ALIGNMENTS[2].model_copy(update={"layout": "folders"})

    assert table.compares_with(copied)


def test_dataset_of_some_of_the_recordings_compares():
    both = PairAlignment(method="homography", layout="folders", homographies=(MATRIX, OTHER))

    assert all(both.compares_with(one) and one.compares_with(both) for one in ALIGNMENTS[-2:])


def entry(parameters):
    """A recording's alignment as a manifest has it."""
    return {
        "alignment": parameters,
        "remaining_error_px": None,
        "median_deviation_px": None,
        "frames_measured": 0,
    }


@pytest.mark.parametrize(
    ("mode", "parameters", "fault"),
    [
        ("skewed", {}, "mode must be none, center, table, auto or homography:FILE"),
        ("homography:h.json", {"rgb": 1.0}, "recordings must have the parameters of homography"),
        ("homography:h.json", {"matrix": 1.0}, "recordings must have the parameters"),
        ("center", {"thermal_degrees": 45.0}, "recordings must have the parameters of center"),
        ("center", {"thermal_degrees": [1.0], "rgb_degrees": 50.0}, "fields_of_view"),
    ],
)
def test_manifest_without_the_parameters_of_its_mode_is_refused(
    dataset, tmp_path, mode, parameters, fault
):
    content = json.loads((dataset / "manifest.json").read_text())
    content["alignment"] = {"mode": mode, "recordings": {"a": entry(parameters)}}
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=fault) as refused:
        read_manifest(tmp_path)

    assert "\n" not in str(refused.value)
