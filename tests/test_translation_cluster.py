"""Translation where several machines reach the files: from a bucket to a bucket, and on Ray."""

import io
import shutil

import numpy as np
import pytest
import ray
from generator_helpers import save_untrained
from object_store import object_store
from PIL import Image

from thermal_search.storage import Location
from thermal_search.translation.command import translate
from thermal_search.translation.settings import TranslationSettings


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "photos" / "day 1").mkdir(parents=True)
    for name in ("a.png", "day 1/what? #1.png"):
        image = Image.fromarray(random.integers(0, 256, (40, 60, 3), np.uint8))
        image.save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.png").write_bytes(b"cut off")
    return tmp_path / "photos"


def upload(folder, location):
    for path in folder.rglob("*"):
        if path.is_file():
            (location / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())
    return location


def test_bucket_to_bucket_is_what_disk_to_disk_is(photos, tmp_path):
    model = save_untrained(tmp_path / "model")
    translate(model, photos, tmp_path / "thermal")
    with object_store() as store:
        bucket = Location.of(store.uri("bucket"))
        bucket.make_folder()
        upload(model, bucket / "model")
        upload(photos, bucket / "photos")
        places = bucket / "model", bucket / "photos", bucket / "thermal"
        first, second = translate(*places), translate(*places)
        one = translate(bucket / "model", bucket / "photos" / "a.png", tmp_path / "one")

        assert [name for name, _ in first.left_out] == ["broken.png"]
        assert (second.kept, second.written) == (first.written, [])
        for name in ("a.png", "day 1/what? #1.png"):
            content = (bucket / "thermal" / name).read_bytes()
            assert content == (tmp_path / "thermal" / name).read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                assert image.size == (60, 40)
    assert [path.name for path in one.written] == ["a.png"]


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # Ray Data warns of its own settings
def test_ray_writes_what_one_process_writes(photos, tmp_path, monkeypatch):
    model = save_untrained(tmp_path / "model")
    one = translate(model, photos, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "a.png").unlink()
    monkeypatch.chdir(tmp_path)  # the workers of Ray are in another folder
    settings = TranslationSettings(address="local")
    try:
        two = translate(Location("model"), Location("photos"), Location("two"), settings)
    finally:
        ray.shutdown()

    assert [path.name for path in two.written] == ["a.png"]
    assert [path.name for path in two.kept] == ["what? #1.png"]
    assert two.left_out == one.left_out
    written = [np.asarray(Image.open(tmp_path / name / "a.png")) for name in ("one", "two")]
    assert np.abs(written[0] - written[1].astype(int)).max() <= 1
