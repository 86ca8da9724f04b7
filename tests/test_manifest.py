"""manifest.json: a damaged, foreign or incomplete one is refused with one sentence."""

import json
import shutil

import pytest

from thermal_search.data.manifest import Manifest, read_manifest, verify_checksums
from thermal_search.errors import DatasetError
from thermal_search.storage import Location


@pytest.fixture
def copy(dataset, tmp_path):
    return shutil.copytree(dataset, tmp_path / "copy")


@pytest.fixture
def content(copy):
    return json.loads((copy / "manifest.json").read_text())


def refused(folder, text):
    """The sentence with which a dataset with this manifest is refused."""
    (folder / "manifest.json").write_text(text)
    with pytest.raises(DatasetError) as raised:
        read_manifest(folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def changed(content, path, value):
    """A copy of nested JSON with the value at a path of keys; `...` removes the key."""
    copy = json.loads(json.dumps(content))
    *parents, last = path
    parent = copy
    for key in parents:
        parent = parent[key]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    return copy


def test_manifest_is_written_and_read_unchanged(copy):
    manifest = read_manifest(copy)
    manifest.save()

    assert read_manifest(copy) == manifest
    assert manifest.folder == Location.of(copy)


@pytest.mark.parametrize("name", [name for name in Manifest.model_fields])
def test_missing_key_is_refused(copy, content, name):
    sentence = refused(copy, json.dumps(changed(content, [name], ...)))

    assert f"{name}: " in sentence
    assert "prepare the dataset again" in sentence


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        (["version"], 3, "has version 3, but this release reads version 4"),
        (["version"], "4", "has version '4'"),
        (["colour"], "red", "colour: Extra inputs"),
        (["size"], "32", "size: Input should be a valid integer"),
        (["size"], 0, "size: "),
        (["size"], [1], "size: "),
        (["layout"], 7, "layout: "),
        (["notes"], "none", "notes: "),
        (["notes"], [1], "notes.0: "),
        (["shards"], [], "shards: "),
        (["shards"], {}, "shards: "),
        (["shards", 0], "x", "shards.0: "),
        (["shards", 0, "rows"], ..., "shards.0.rows: Field required"),
        (["shards", 0, "rows"], -1, "shards.0.rows: "),
        (["shards", 0, "rows"], 1.5, "shards.0.rows: "),
        (["shards", 0, "kind"], "videos", "shards.0.kind: "),
        (["shards", 0, "color"], "red", "shards.0.color: Extra inputs"),
        (["shards", 0, "sha256"], "0", "shards.0.sha256: "),
        (["shards", 0, "path"], "../../etc/passwd", "must stay inside the dataset's folder"),
        (["shards", 0, "path"], "/etc/passwd", "must stay inside the dataset's folder"),
        (["shards", 0, "path"], "", "must stay inside the dataset's folder"),
        (["shards", 0, "path"], "pairs/absent.parquet", "pairs/absent.parquet is missing"),
        (["temperatures"], {"low": 0.0}, "temperatures must have the numbers"),
        (["temperatures"], 3, "temperatures: "),
        (["alignment", "mode"], None, "alignment.mode: "),
        (["alignment", "recordings"], {"a": {}}, "alignment.recordings.a."),
        (["recordings"], {"a": {"split": "train", "frames": "1"}}, "recordings.a.frames: "),
        (["unusable_files"], [{"file": "a"}], "unusable_files.0.reason: Field required"),
        (["rejected_pairs"], [{"file": "a"}], "rejected_pairs.0."),
    ],
)
def test_wrong_value_is_refused(copy, content, path, value, fault):
    assert fault in refused(copy, json.dumps(changed(content, path, value)))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "null", "[" * 200_000, '{"version":' * 200_000, "9" * 10_000, "\x00"],
    ids=["empty", "cut", "list", "number", "null", "deep list", "deep", "digits", "binary"],
)
def test_other_content_is_refused(copy, text):
    assert "manifest.json is damaged" in refused(copy, text)


def test_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="holds no prepared dataset"):
        read_manifest(tmp_path / "nowhere")


def test_missing_shard_is_refused(copy, content):
    (copy / content["shards"][0]["path"]).unlink()
    with pytest.raises(DatasetError, match=r"is incomplete: .* is missing"):
        read_manifest(copy)


def test_dataset_without_validation_pairs_is_refused(copy, content):
    content["shards"] = [s for s in content["shards"] if s["split"] != "val"]

    assert "must have at least 2 pairs in its val split" in refused(copy, json.dumps(content))


def test_damaged_pixels_are_detected(copy):
    manifest = read_manifest(copy)
    shard = copy / manifest.shards[0].path
    shard.write_bytes(shard.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(DatasetError, match="damaged"):
        verify_checksums(manifest)
