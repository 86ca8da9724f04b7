"""Which pairs are believed, and how it is known."""

import shutil
import subprocess
import sys
from pathlib import Path

import layout_trees
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thermal_search.data.manifest import verify
from thermal_search.errors import DatasetError
from thermal_search.preparation.edge_agreement import edge_agreement
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.verification import AGREES, Scored, doubtful

ROOT = Path(__file__).parents[1]
BICUBIC = Image.Resampling.BICUBIC


def stored(rgb, thermal):
    return np.asarray(rgb).transpose(2, 0, 1).copy(), np.asarray(thermal)


def scored(*scores, pairing="recovered"):
    return [Scored("drive", f"{n:03d}", pairing, score) for n, score in enumerate(scores)]


def reasons(pairs):
    return [(int(d.pair.name), d.reason.split(":")[0]) for d in doubtful(pairs)]


def test_true_pairs_score_above_the_threshold_and_wrong_ones_below():
    scenes = [stored(*layout_trees.scene(seed)) for seed in range(12)]
    true = [edge_agreement(rgb, thermal) for rgb, thermal in scenes]
    wrong = [edge_agreement(scenes[n][0], scenes[n - 1][1]) for n in range(12)]

    assert min(true) > AGREES > max(wrong)


def test_inverting_thermal_changes_nothing_and_a_flat_picture_agrees_with_nothing():
    rgb, thermal = stored(*layout_trees.scene(1))

    assert edge_agreement(rgb, 255 - thermal) == pytest.approx(edge_agreement(rgb, thermal), 0.01)
    assert edge_agreement(rgb, np.full_like(thermal, 7)) == 0


def test_a_recording_of_another_scene_is_dropped_whole():
    assert reasons(scored(*[0.05, 0.16, 0.08] * 5)) == [(n, "another scene") for n in range(15)]


def test_a_recording_that_drifts_is_cut_where_agreement_is_lost():
    assert reasons(scored(*[0.3] * 10, 0.05, *[0.3] * 5, *[0.06] * 8, 0.16)) == [
        (10, "doubtful"),
        *((n, "drifted") for n in range(16, 25)),
    ]


def test_a_recording_that_comes_into_step_later_keeps_its_end():
    assert reasons(scored(*[0.05] * 3, *[0.3] * 6)) == [(n, "not in step") for n in range(3)]


@pytest.mark.parametrize("pairing", ["official", "assumed"])
def test_other_pairs_are_scored_but_kept(pairing):
    assert doubtful(scored(0.0, 0.0, pairing=pairing)) == []


def test_recovered_pairs_of_another_scene_do_not_reach_the_dataset(tmp_path):
    layout_trees.flir_v2_scenes(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "data", size=64, workers=1)

    assert manifest.counts()["pairs"] == {"train": 4, "val": 4, "test": 12}
    # Parted, their frames stay for systems that need no pairs: 4 more of each kind and split.
    assert manifest.counts()["rgb"] == {"train": 11, "val": 11, "test": 0}
    assert manifest.counts()["thermal"] == {"train": 11, "val": 11, "test": 0}
    verify(manifest)
    dropped = manifest.dropped_pairs
    assert {item["recording"] for item in dropped} == {"rgbTrain2", "rgbVal2"}
    assert all(item["score"] < AGREES and "another scene" in item["reason"] for item in dropped)
    told = manifest.recordings
    assert told["rgbTrain1 (pairs)"]["pairing"] == "recovered"
    assert told["rgbTrain1 (pairs)"]["agreement"]["50%"] > AGREES
    assert told["rgbTest0 (pairs)"]["pairing"] == "official"


def test_parted_frames_keep_their_pixels(tmp_path):
    layout_trees.flir_v2_scenes(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "data", size=128, workers=1)
    for kind, mode, place in (("rgb", "RGB", 0), ("thermal", "L", 1)):
        tables = [pq.read_table(path) for path in manifest.shard_paths(kind, "train")]
        rows = {row["name"]: row for table in tables for row in table.to_pylist()}
        scene = layout_trees.scene(30 if kind == "rgb" else 99)[place].resize((128, 128), BICUBIC)
        row = rows["rgbTrain2-000030"]
        stored = np.frombuffer(row[kind], np.uint8).astype(int).reshape(-1, 128, 128)
        expected = np.asarray(scene.convert(mode)).reshape(128, 128, -1).transpose(2, 0, 1)
        assert np.abs(stored - expected).mean() < 10
        assert row["recording"] == "rgbTrain2"


def test_only_official_pairs_are_taken_if_asked_for(tmp_path):
    layout_trees.flir_v2_scenes(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "data", size=32, workers=1, official_only=True)

    assert {told.get("pairing") for told in manifest.recordings.values()} == {"official", None}
    # The videos are dealt out; the stills keep their authors' split.
    assert sum(manifest.counts()["pairs"].values()) == 12
    assert manifest.counts()["rgb"] == {"train": 15, "val": 15, "test": 0}


def test_where_no_recovered_pair_validates_the_way_out_is_told(tmp_path):
    layout_trees.flir_v2(tmp_path / "raw")
    with pytest.raises(DatasetError, match="--official-only, and the official pairs are dealt"):
        prepare(tmp_path / "raw", tmp_path / "data", size=32, workers=1)


def test_a_damaged_shard_is_told_by_the_check(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")

    def check():
        command = [sys.executable, ROOT / "process.py", "--check", copy]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "Every shard is as it was written" in check().stdout
    shard = next(copy.glob("pairs/train-*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    told = check()

    assert told.returncode == 1
    assert f"{shard} is damaged" in told.stderr
    assert "Traceback" not in told.stderr
