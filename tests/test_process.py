"""process.py and the preparation of datasets, on real files with realistic faults."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from recordings import PROCESS, folders, image, run

from thermal_search.data.manifest import read_manifest, verify_checksums
from thermal_search.errors import DatasetError, SettingsError
from thermal_search.preparation.layouts import read_layout
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings


def rows(folder, kind, split):
    tables = [pq.read_table(p) for p in read_manifest(folder).shard_paths(kind, split)]
    return [row for table in tables for row in table.to_pylist()]


def planes(image):
    return np.asarray(image).transpose(2, 0, 1).tobytes()


def all_rows(folder, kind="pairs"):
    return [row for split in ("train", "val", "test") for row in rows(folder, kind, split)]


def test_pixels_that_need_no_resize_arrive_exactly(tmp_path):
    folders(tmp_path / "raw", size=(32, 32))
    prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=32))
    row = rows(tmp_path / "data", "pairs", "train")[0]
    with Image.open(tmp_path / "raw" / "visible" / f"{row['name']}.png") as rgb:
        assert row["rgb"] == planes(rgb)
    with Image.open(tmp_path / "raw" / "infrared" / f"{row['name']}.png") as thermal:
        assert row["thermal"] == thermal.tobytes()


def test_requested_filter_is_used(tmp_path):
    folders(tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=64, filter="lanczos"))
    row = rows(tmp_path / "data", "pairs", "val")[0]
    with Image.open(tmp_path / "raw" / "visible" / f"{row['name']}.png") as rgb:
        assert row["rgb"] == planes(rgb.resize((64, 64), Image.Resampling.LANCZOS))


def test_a_recording_is_never_in_two_splits_and_no_frame_is_lost(tmp_path):
    folders(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=32))
    recordings = {
        s: {r["recording"] for r in rows(manifest.folder, "pairs", s)}
        for s in ("train", "val", "test")
    }

    assert not recordings["train"] & recordings["val"]
    assert not (recordings["train"] | recordings["val"]) & recordings["test"]
    assert all(recordings.values())
    assert len({r["name"] for r in all_rows(manifest.folder)}) == 60


def test_the_number_of_processes_does_not_matter(tmp_path):
    folders(tmp_path / "raw")
    digests = {
        prepare(
            tmp_path / "raw", tmp_path / f"data{n}", PreparationSettings(size=32, workers=n)
        ).digest
        for n in (1, 2)
    }

    assert len(digests) == 1


def test_datasets_with_other_pixels_have_other_folders_of_statistics(tmp_path):
    """Even in the same folder of a bucket, with the same number of frames."""
    folders(tmp_path / "raw")
    one, other = (
        prepare(tmp_path / "raw", tmp_path / name, PreparationSettings(size=32, filter=name))
        for name in ("bicubic", "bilinear")
    )
    assert one.counts() == other.counts()
    assert one.statistics.name != other.statistics.name


def test_single_recording_is_cut_by_time_with_a_note(tmp_path):
    folders(tmp_path / "raw", count=40, gap_every=100)
    manifest = prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=32))

    assert manifest.counts()["pairs"] == {"train": 26, "val": 4, "test": 6}
    # Two pairs at each cut are in no split: they look like their neighbors.
    assert any("one recording" in note for note in manifest.notes)
    names = [[r["name"] for r in rows(tmp_path / "data", "pairs", s)] for s in ("train", "test")]
    assert max(names[0]) < min(names[1])


def test_flir_layout_pairs_by_the_map_and_keeps_stills_unpaired(recording, tmp_path):
    manifest = prepare(recording, tmp_path / "data", PreparationSettings(size=32))
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


def test_unusable_files_are_listed_and_counted(tmp_path):
    root = folders(tmp_path / "raw")
    first, second, third, fourth = sorted((root / "visible").iterdir())[:4]
    first.write_bytes(first.read_bytes()[:200])
    second.write_bytes(b"")
    (root / "infrared" / third.name).unlink()
    image(fourth, 1, (99, 30))
    result = run(root, tmp_path / "data", "--size", 32, "--max-unusable", 0.2)

    assert result.returncode == 0, result.stderr
    assert "unusable 4" in result.stdout
    manifest = read_manifest(tmp_path / "data")
    reasons = {file.file: file.reason for file in manifest.unusable_files}
    assert "corrupt" in reasons[f"visible/{first.name}"]
    assert "corrupt" in reasons[f"visible/{second.name}"]
    assert "no thermal partner" in reasons[f"visible/{third.name}"]
    assert "mismatched: RGB is 99 x 30" in reasons[f"visible/{fourth.name}"]
    assert len(all_rows(tmp_path / "data")) == 56


def test_too_many_unusable_files_give_one_sentence_and_no_dataset(tmp_path):
    root = folders(tmp_path / "raw")
    for path in sorted((root / "infrared").iterdir())[:9]:
        path.unlink()
    result = run(root, tmp_path / "data", "--size", 32)

    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "9 of 60 frames cannot be used" in result.stderr
    assert not (tmp_path / "data").exists()


def test_map_entry_without_its_file_is_listed(tmp_path):
    root = flir(tmp_path / "raw")
    gone = next((root / "video_thermal_test" / "data").iterdir())
    gone.unlink()
    _, contents = read_layout(root)

    assert contents.unusable_files == [
        (f"video_thermal_test/data/{gone.name}", "named by the map, but missing")
    ]


def test_killed_run_leaves_no_dataset_and_the_next_run_finishes_it(tmp_path):
    # Large frames and small shards: slow enough to be killed half-way.
    root = folders(tmp_path / "raw", count=48, size=(900, 700))
    expected = prepare(root, tmp_path / "whole", PreparationSettings(size=512)).digest
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

    assert prepare(root, tmp_path / "data", PreparationSettings(size=512)).digest == expected
    assert done
    assert not (tmp_path / "data.partial").exists()
    verify_checksums(read_manifest(tmp_path / "data"))


def test_the_same_command_again_changes_nothing(tmp_path):
    folders(tmp_path / "raw")
    assert run(tmp_path / "raw", tmp_path / "data", "--size", 32).returncode == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}
    assert run(tmp_path / "raw", tmp_path / "data", "--size", 32).returncode == 0
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "data").rglob("*")}


def test_another_dataset_is_not_overwritten(tmp_path):
    folders(tmp_path / "raw")
    prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=32))
    result = run(tmp_path / "raw", tmp_path / "data", "--size", 64)

    assert result.returncode == 1
    assert "exists and is not this dataset with these settings" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["nowhere", "out"], 1, "nowhere must be a folder"),
        (["."], 2, "SOURCE and OUTPUT are required, or --verify DATASET"),
        ([".", "out", "--size", "100"], 2, "--size must be a power of two from 32 to 1024, but"),
        ([".", "out", "--size", "large"], 2, "--size must be a whole number, but is large"),
        ([".", "out", "--max-unusable", "2"], 2, "--max-unusable must be below 1"),
        ([".", "out", "--every-nth", "0"], 2, "--every-nth must be at least 1, but is 0"),
        ([".", "out", "--splits", "70,x"], 2, "--splits must be numbers separated by commas"),
        ([".", "out", "--splits", "70,30"], 2, "--splits must be three numbers"),
        ([".", "out", "--splits", "-1,2,3"], 2, "--splits must be three numbers"),
        ([".", "out", "--celsius", "1"], 2, "--celsius needs 2 values, LOW HIGH"),
        ([".", "out", "--celsius=60,-20"], 2, "--celsius must be LOW HIGH with LOW below"),
        ([".", "out", "--align", "sideways"], 2, "--align must be none, center, table"),
        ([".", "out", "--fields-of-view", "0,52"], 2, "two angles between 0 and 180 degrees"),
        ([".", "out", "--celsius", "60", "-20"], 2, "--celsius must be LOW HIGH with LOW below"),
        ([".", "out", "--layout", "flir"], 2, "--layout must be auto, flir-v2"),
        ([".", "out", "--aling", "auto"], 2, "unknown flag --aling: did you mean --align?"),
        ([".", "out", "--siz", "64"], 2, "unknown flag --siz: did you mean --size?"),
        (["s3://key:secret@bucket/x", "out"], 2, "must not hold a user or a password"),
        ([".", "../out"], 1, "must have a known layout"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, arguments, code, sentence):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)

    assert result.returncode == code
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_config_file_gives_settings_that_flags_override(tmp_path):
    folders(tmp_path / "raw", count=24, gap_every=8)
    config = tmp_path / "settings.yaml"
    config.write_text("size: 64\nsplits: 50,25,25\nevery_nth: 2\n")
    result = run(tmp_path / "raw", tmp_path / "data", "--config", config, "--size", 32)

    assert result.returncode == 0, result.stderr
    plan = json.loads((tmp_path / "data" / "preparation.json").read_text())
    assert plan["settings"]["size"] == 32
    assert plan["settings"]["every_nth"] == 2
    assert plan["settings"]["splits"] == [50, 25, 25]


def test_help_shows_every_setting_and_imports_no_torch():
    program = (
        "import sys; sys.argv = ['process.py', '--help']; import process\n"
        "process.main(); assert not {'torch', 'ray', 'pyarrow'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PROCESS.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    for name in PreparationSettings.model_fields:
        assert f"--{name.replace('_', '-')}" in result.stdout


def test_every_setting_has_help():
    assert all(field.description for field in PreparationSettings.model_fields.values())


def test_settings_out_of_range_are_refused_in_python_too():
    with pytest.raises(SettingsError, match="--size must be a power of two from 32 to 1024, but"):
        PreparationSettings(size=100)


def test_roadscene(roadscene, tmp_path):
    manifest = prepare(roadscene, tmp_path / "data", PreparationSettings(size=64))
    counts = manifest.counts()["pairs"]

    assert sum(counts.values()) == 176
    assert counts["train"] > 100
    assert min(counts["val"], counts["test"]) > 15
    assert manifest.unusable_files == []
    with Image.open(tmp_path / "data" / "preview.png") as preview:
        assert preview.size == (6 * 64, 2 * 64)


def test_broken_image_of_a_relative_source_is_listed(tmp_path, monkeypatch):
    folders(tmp_path / "raw")
    (tmp_path / "raw" / "visible" / "FLIR_00003.png").write_bytes(b"broken")
    monkeypatch.chdir(tmp_path)
    settings = PreparationSettings(size=32, workers=1)
    manifest = prepare(Path("raw"), Path("data"), settings)

    assert [file.file for file in manifest.unusable_files] == ["visible/FLIR_00003.png"]


def test_swapped_sides_are_refused(tmp_path):
    folders(tmp_path / "raw")
    (tmp_path / "raw" / "visible").rename(tmp_path / "raw" / "ir")
    (tmp_path / "raw" / "infrared").rename(tmp_path / "raw" / "rgb")
    with pytest.raises(DatasetError, match=r"60 in color, .*; are the sides swapped\?"):
        prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=32, workers=1))


def radiometric(root, count=60, gap_every=15):
    """Writes TIFFs of counts from 10 to 40 degrees Celsius, and returns the counts."""
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


def test_counts_are_exact_and_their_range_is_that_of_the_training_split(tmp_path):
    counts = radiometric(tmp_path / "raw")
    manifest = prepare(
        tmp_path / "raw", tmp_path / "data", PreparationSettings(size=32, thermal="16bit")
    )

    for row in all_rows(tmp_path / "data"):
        assert row["thermal"] == counts[row["name"]].astype("<u2").tobytes()
    temperatures = manifest.temperatures
    assert temperatures
    assert temperatures.low == pytest.approx(10, abs=0.2)
    assert temperatures.high == pytest.approx(40, abs=0.2)
    assert read_manifest(tmp_path / "data") == manifest


def test_range_of_degrees_can_be_chosen(tmp_path):
    radiometric(tmp_path / "raw")
    flags = ["--size", 32, "--thermal", "16bit"]
    result = run(tmp_path / "raw", tmp_path / "data", *flags, "--celsius", -20, 60)

    assert result.returncode == 0, result.stderr
    assert "from -20 to 60 degrees Celsius" in result.stdout


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kelvin_per_count": 0.16}, r"from 859\S* to 979\S* degrees Celsius, with 0.16 K a count"),
        ({"celsius_at_zero": 0.0}, "must have possible temperatures, but would be from 28"),
        ({"celsius": (60, 90)}, "--celsius must hold most of the pixels, but these are from 10"),
    ],
)
def test_impossible_temperatures_are_refused(tmp_path, settings, message):
    radiometric(tmp_path / "raw", count=16)
    settings = PreparationSettings(size=32, workers=1, thermal="16bit", **settings)
    with pytest.raises(DatasetError, match=message):
        prepare(tmp_path / "raw", tmp_path / "data", settings)


def test_frames_without_the_requested_depth_are_named(tmp_path):
    folders(tmp_path / "gray")
    radiometric(tmp_path / "counts")
    with pytest.raises(DatasetError, match="reads 16-bit images of one channel"):
        prepare(tmp_path / "gray", tmp_path / "a", PreparationSettings(size=32, thermal="16bit"))
    with pytest.raises(DatasetError, match="unless --thermal 16bit is passed"):
        prepare(tmp_path / "counts", tmp_path / "b", PreparationSettings(size=32))
