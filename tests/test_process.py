"""process.py and the preparation of datasets, on real files with everything that goes wrong."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thermal_search.data.manifest import read_manifest, verify
from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts import read_layout
from thermal_search.preparation.prepare import prepare

PROCESS = Path(__file__).parents[1] / "process.py"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(PROCESS), *map(str, arguments), "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def image(path, seed=0, size=(40, 30), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)


def folders(root, count=60, gap_every=15, size=(40, 30)):
    """Recordings of `gap_every` frames each, far apart in number."""
    for n in range(count):
        number = n + 1000 * (n // gap_every)
        image(root / "visible" / f"FLIR_{number:05}.png", n, size)
        image(root / "infrared" / f"FLIR_{number:05}.png", n + 1, size, "L")
    return root


def rows(folder, kind, split):
    tables = [pq.read_table(p) for p in read_manifest(folder).shard_paths(kind, split)]
    return [row for table in tables for row in table.to_pylist()]


def planes(image):
    return np.asarray(image).transpose(2, 0, 1).tobytes()


def all_rows(folder, kind="pairs"):
    return [row for split in ("train", "val", "test") for row in rows(folder, kind, split)]


def test_pixels_that_need_no_resize_arrive_exactly(tmp_path):
    folders(tmp_path / "raw", size=(32, 32))
    prepare(tmp_path / "raw", tmp_path / "data", size=32)
    row = rows(tmp_path / "data", "pairs", "train")[0]
    with Image.open(tmp_path / "raw" / "visible" / f"{row['name']}.png") as rgb:
        assert row["rgb"] == planes(rgb)
    with Image.open(tmp_path / "raw" / "infrared" / f"{row['name']}.png") as thermal:
        assert row["thermal"] == thermal.tobytes()


def test_the_filter_asked_for_is_used(tmp_path):
    folders(tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "data", size=64, filter="lanczos")
    row = rows(tmp_path / "data", "pairs", "val")[0]
    with Image.open(tmp_path / "raw" / "visible" / f"{row['name']}.png") as rgb:
        assert row["rgb"] == planes(rgb.resize((64, 64), Image.Resampling.LANCZOS))


def test_a_recording_is_never_in_two_splits_and_no_frame_is_lost(tmp_path):
    folders(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "data", size=32)
    seen = {
        s: {r["recording"] for r in rows(manifest.folder, "pairs", s)}
        for s in ("train", "val", "test")
    }

    assert not seen["train"] & seen["val"]
    assert not (seen["train"] | seen["val"]) & seen["test"]
    assert all(seen.values())
    assert len({r["name"] for r in all_rows(manifest.folder)}) == 60


def test_the_number_of_processes_does_not_matter(tmp_path):
    folders(tmp_path / "raw")
    digests = {
        prepare(tmp_path / "raw", tmp_path / f"data{n}", size=32, workers=n).digest for n in (1, 2)
    }

    assert len(digests) == 1


def test_what_is_measured_of_a_dataset_is_kept_apart_from_anothers(tmp_path):
    """Whose files may lie in the same folder of a bucket, with the same numbers of frames."""
    folders(tmp_path / "raw")
    one, other = (
        prepare(tmp_path / "raw", tmp_path / name, size=32, filter=name)
        for name in ("bicubic", "bilinear")
    )
    assert one.counts() == other.counts()
    assert one.statistics.name != other.statistics.name


def test_one_recording_is_cut_by_time_and_said_so(tmp_path):
    folders(tmp_path / "raw", count=40, gap_every=100)
    manifest = prepare(tmp_path / "raw", tmp_path / "data", size=32)

    assert manifest.counts()["pairs"] == {"train": 28, "val": 6, "test": 6}
    assert any("one recording" in note for note in manifest.notes)
    names = [[r["name"] for r in rows(tmp_path / "data", "pairs", s)] for s in ("train", "test")]
    assert max(names[0]) < min(names[1])


def test_the_flir_layout_pairs_by_the_map_and_keeps_stills_apart(recording, tmp_path):
    manifest = prepare(recording, tmp_path / "data", size=32)
    counts = manifest.counts()

    assert manifest.layout == "flir-v2"
    assert sum(counts["pairs"].values()) == 48
    assert counts["rgb"] == counts["thermal"] == {"train": 8, "val": 2, "test": 0}
    assert len({r["recording"] for r in all_rows(tmp_path / "data")}) == 6


def flir(root, count=30, map_at=None, mapping=None):
    names = {}
    for n in range(count):
        rgb = f"video-abc{n // 5}-frame-{n:06}-x{n}.jpg"
        thermal = f"video-def{n // 5}-frame-{n:06}-y{n}.jpg"
        # Real recordings mix sizes, and thermal comes as three equal channels.
        image(root / "video_rgb_test" / "data" / rgb, n, (60, 50) if n % 2 else (45, 40))
        image(root / "video_thermal_test" / "data" / thermal, n, (40, 32))
        names[rgb] = thermal
    content = json.dumps(names if mapping is None else mapping(names))
    ((map_at or root) / "rgb_to_thermal_vid_map.json").write_text(content)
    return root


def test_unusable_files_are_named_counted_and_left_out(tmp_path):
    root = folders(tmp_path / "raw")
    first, second, third, fourth = sorted((root / "visible").iterdir())[:4]
    first.write_bytes(first.read_bytes()[:200])
    second.write_bytes(b"")
    (root / "infrared" / third.name).unlink()
    image(fourth, 1, (99, 30))
    result = run(root, tmp_path / "data", "--size", 32, "--max-bad", 0.2)

    assert result.returncode == 0, result.stderr
    assert "left out 4" in result.stdout
    manifest = read_manifest(tmp_path / "data")
    reasons = {item["file"]: item["reason"] for item in manifest.left_out}
    assert "corrupt" in reasons[f"visible/{first.name}"]
    assert "corrupt" in reasons[f"visible/{second.name}"]
    assert "no thermal partner" in reasons[f"visible/{third.name}"]
    assert "mismatched: RGB is 99 x 30" in reasons[f"visible/{fourth.name}"]
    assert len(all_rows(tmp_path / "data")) == 56


def test_too_many_unusable_files_are_one_sentence_and_no_dataset(tmp_path):
    root = folders(tmp_path / "raw")
    for path in sorted((root / "infrared").iterdir())[:9]:
        path.unlink()
    result = run(root, tmp_path / "data", "--size", 32)

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "9 of 60 frames cannot be used" in result.stderr
    assert not (tmp_path / "data").exists()


def test_a_map_entry_without_its_file_is_named(tmp_path):
    root = flir(tmp_path / "raw")
    gone = next((root / "video_thermal_test" / "data").iterdir())
    gone.unlink()
    _, found = read_layout(root)

    assert found.left_out == [
        (f"video_thermal_test/data/{gone.name}", "named by the map, but missing")
    ]


def test_a_killed_run_leaves_no_dataset_and_the_next_one_finishes_it(tmp_path):
    # Large frames and small shards: slow enough to be killed in the middle.
    root = folders(tmp_path / "raw", count=48, size=(900, 700))
    expected = prepare(root, tmp_path / "whole", size=512).digest
    command = [sys.executable, str(PROCESS), str(root), str(tmp_path / "data"), "--size", "512"]
    process = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    state = tmp_path / "data.partial" / "state"
    deadline = time.monotonic() + 120
    while not list(state.rglob("*.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "data").exists()
    done = {path: path.stat().st_mtime_ns for path in state.rglob("*.json")}

    assert prepare(root, tmp_path / "data", size=512).digest == expected
    assert done
    assert not (tmp_path / "data.partial").exists()
    verify(read_manifest(tmp_path / "data"))


def test_the_same_command_again_changes_nothing(tmp_path):
    folders(tmp_path / "raw")
    assert run(tmp_path / "raw", tmp_path / "data", "--size", 32).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}
    assert run(tmp_path / "raw", tmp_path / "data", "--size", 32).returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}


def test_another_dataset_is_not_overwritten(tmp_path):
    folders(tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "data", size=32)
    result = run(tmp_path / "raw", tmp_path / "data", "--size", 64)

    assert result.returncode == 1
    assert "exists and is not this dataset at this size" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "out"], "nowhere must be a folder"),
        ([".", "out", "--size", "100"], "--size must be a power of two"),
        ([".", "out", "--max-bad", "2"], "--max-bad must be from 0"),
        ([".", "out"], "has no layout we know"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)

    assert result.returncode == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["absent", "cut", "schema", "shard", "outside"])
def test_a_dataset_that_is_not_whole_is_refused(dataset, tmp_path, damage):
    folder = tmp_path / "copy"
    shutil.copytree(dataset, folder)
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text())
    match damage:
        case "absent":
            manifest.unlink()
        case "cut":
            manifest.write_text(manifest.read_text()[:100])
        case "schema":
            manifest.write_text(json.dumps(content | {"schema_version": 99}))
        case "shard":
            (folder / content["shards"][0]["path"]).unlink()
        case "outside":
            content["shards"][0]["path"] = "../../etc/passwd"
            manifest.write_text(json.dumps(content))
    with pytest.raises(DatasetError):
        read_manifest(folder)


def test_damaged_pixels_are_found(dataset, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(dataset, folder)
    manifest = read_manifest(folder)
    shard = folder / manifest.shards[0].path
    shard.write_bytes(shard.read_bytes()[:-10] + b"0123456789")
    with pytest.raises(DatasetError, match="damaged"):
        verify(manifest)


def test_roadscene(roadscene, tmp_path):
    manifest = prepare(roadscene, tmp_path / "data", size=64)
    counts = manifest.counts()["pairs"]

    assert sum(counts.values()) == 176
    assert counts["train"] > 100
    assert min(counts["val"], counts["test"]) > 15
    assert manifest.left_out == []
    with Image.open(tmp_path / "data" / "preview.png") as preview:
        assert preview.size == (6 * 64, 2 * 64)


def radiometric(root, count=60, gap_every=15):
    """Counts from 10 to 40 degrees Celsius, in a folder of TIFFs; and what they were."""
    random = np.random.default_rng(0)
    counts = {}
    for n in range(count):
        name = f"FLIR_{n + 1000 * (n // gap_every):05}"
        image(root / "visible" / f"{name}.png", n, (32, 32))
        celsius = random.uniform(10, 40, (32, 32))
        counts[name] = ((celsius + 273.15) / 0.04).round().astype(np.uint16)
        (root / "infrared").mkdir(parents=True, exist_ok=True)
        Image.fromarray(counts[name]).save(root / "infrared" / f"{name}.tiff")
    return counts


def test_counts_are_kept_to_the_bit_and_their_range_is_the_training_splits(tmp_path):
    counts = radiometric(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "data", size=32, thermal="16bit")

    for row in all_rows(tmp_path / "data"):
        assert row["thermal"] == counts[row["name"]].astype("<u2").tobytes()
    temperatures = manifest.temperatures
    assert temperatures
    assert temperatures.low == pytest.approx(10, abs=0.2)
    assert temperatures.high == pytest.approx(40, abs=0.2)
    assert read_manifest(tmp_path / "data") == manifest


def test_the_range_and_the_meaning_of_counts_can_be_said(tmp_path):
    radiometric(tmp_path / "raw")
    flags = ["--size", 32, "--thermal", "16bit"]
    one = run(tmp_path / "raw", tmp_path / "one", *flags, "--celsius", -20, 60)
    two = run(tmp_path / "raw", tmp_path / "two", *flags, "--celsius", 60, -20)

    assert one.returncode == 0, one.stderr
    assert "from -20 to 60 degrees Celsius" in one.stdout
    assert two.returncode == 1
    assert two.stderr.count("\n") == 1
    assert "--celsius must be LOW HIGH with LOW below HIGH" in two.stderr


def test_frames_without_the_depth_asked_for_are_named(tmp_path):
    folders(tmp_path / "grey")
    radiometric(tmp_path / "counts")
    with pytest.raises(DatasetError, match="reads 16-bit images of one channel"):
        prepare(tmp_path / "grey", tmp_path / "a", size=32, thermal="16bit")
    with pytest.raises(DatasetError, match="unless --thermal 16bit is passed"):
        prepare(tmp_path / "counts", tmp_path / "b", size=32)
