"""SourceContents and datasets in a bucket, against a real S3 server on loopback."""

import hashlib
from functools import partial

import pytest
from object_store import object_store
from recordings import folders, run

from thermal_search.errors import DatasetError
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.staging import stage
from thermal_search.storage import Location


def content(folder):
    """Hash of every file, by its path below the folder."""
    base = len(folder.path)
    return {
        file.path[base:]: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.list(deep=True)
    }


def test_recording_in_a_bucket_becomes_the_same_dataset_in_a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = folders(tmp_path / "raw", count=24, gap_every=8)
    photo = tmp_path / "disk" / "source" / "raw" / "photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_text("mine")
    with object_store() as store:
        bucket = Location.of(store.uri("bucket"))
        bucket.make_folder()
        for path in sorted(root.rglob("*.png")):
            (bucket / "raw" / path.relative_to(root)).write_bytes(path.read_bytes())
        result = run(bucket / "raw", bucket / "data", "--size", 32, "--scratch", photo.parents[2])
        assert result.returncode == 0, result.stderr
        prepare(root, tmp_path / "data", PreparationSettings(size=32))
        local, remote = content(Location.of(tmp_path / "data")), content(bucket / "data")

        # Only the plan holds the files' times, which a bucket does not keep.
        assert local.keys() == remote.keys()
        assert {n for n in local if local[n] != remote[n]} <= {"/preparation.json"}
        # Of the scratch folder only what the run made is removed.
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "disk", "raw"]
        assert [path for path in photo.parents[2].rglob("*") if path.is_file()] == [photo]
        work = partial(prepare, settings=PreparationSettings(size=64))
        with pytest.raises(DatasetError, match="holds another dataset"):
            stage(Location.of(root), bucket / "data", None, work)
        (bucket / "photos" / "manifest.json").write_text("mine")
        with pytest.raises(DatasetError, match="must be empty or hold this dataset, but holds"):
            stage(Location.of(root), bucket / "photos", None, work)
        with pytest.raises(DatasetError, match="is empty or absent"):
            stage(bucket / "nowhere", bucket / "new", None, work)
