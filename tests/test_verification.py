"""Which pairs are kept, by the agreement of their edges."""

import shutil
import subprocess
import sys
from pathlib import Path

import layout_trees
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thermal_search.data.manifest import verify_checksums
from thermal_search.errors import DatasetError
from thermal_search.preparation.edge_agreement import edge_agreement
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.verification import MIN_AGREEMENT, ScoredPair, rejected_pairs

ROOT = Path(__file__).parents[1]
BICUBIC = Image.Resampling.BICUBIC


def stored(rgb, thermal):
    return np.asarray(rgb).transpose(2, 0, 1).copy(), np.asarray(thermal)


def scored(*scores, pairing="recovered"):
    return [ScoredPair("drive", f"{n:03d}", pairing, score) for n, score in enumerate(scores)]


def reasons(pairs):
    return [(int(pair.name), pair.reason.split(":")[0]) for pair in rejected_pairs(pairs)]


def test_true_pairs_score_above_the_threshold_and_wrong_ones_below():
    scenes = [stored(*layout_trees.scene(seed)) for seed in range(12)]
    true = [edge_agreement(rgb, thermal) for rgb, thermal in scenes]
    wrong = [edge_agreement(scenes[n][0], scenes[n - 1][1]) for n in range(12)]

    assert min(true) > MIN_AGREEMENT > max(wrong)


def test_inverted_thermal_scores_the_same_and_flat_thermal_scores_zero():
    rgb, thermal = stored(*layout_trees.scene(1))

    assert edge_agreement(rgb, 255 - thermal) == pytest.approx(edge_agreement(rgb, thermal), 0.01)
    assert edge_agreement(rgb, np.full_like(thermal, 7)) == 0


def test_recording_of_another_scene_is_rejected_entirely():
    assert reasons(scored(*[0.05, 0.16, 0.08] * 5)) == [(n, "another scene") for n in range(15)]


def test_drifting_recording_is_cut_where_agreement_is_lost():
    assert reasons(scored(*[0.3] * 10, 0.05, *[0.3] * 5, *[0.06] * 8, 0.16)) == [
        (10, "doubtful"),
        *((n, "drifted") for n in range(16, 25)),
    ]


def test_a_recording_that_comes_into_step_later_keeps_its_end():
    assert reasons(scored(*[0.05] * 3, *[0.3] * 6)) == [(n, "out of step") for n in range(3)]


@pytest.mark.parametrize("pairing", ["official", "assumed"])
def test_other_pairs_are_scored_but_kept(pairing):
    assert rejected_pairs(scored(0.0, 0.0, pairing=pairing)) == []


def test_recovered_pairs_of_another_scene_do_not_reach_the_dataset(tmp_path):
    layout_trees.flir_v2_scenes(tmp_path / "raw")
    manifest = prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=64, workers=1))

    assert manifest.counts()["pairs"] == {"train": 4, "val": 4, "test": 12}
    # Rejected pairs become unpaired frames: 4 more of each kind and split.
    assert manifest.counts()["rgb"] == {"train": 11, "val": 11, "test": 0}
    assert manifest.counts()["thermal"] == {"train": 11, "val": 11, "test": 0}
    verify_checksums(manifest)
    rejected = manifest.rejected_pairs
    assert {pair.recording for pair in rejected} == {"rgbTrain2", "rgbVal2"}
    assert all(p.score < MIN_AGREEMENT and "another scene" in p.reason for p in rejected)
    entries = manifest.recordings
    assert entries["rgbTrain1 (pairs)"].pairing == "recovered"
    assert entries["rgbTrain1 (pairs)"].agreement["50%"] > MIN_AGREEMENT
    assert entries["rgbTest0 (pairs)"].pairing == "official"


def test_frames_of_rejected_pairs_keep_their_pixels(tmp_path):
    layout_trees.flir_v2_scenes(tmp_path / "raw")
    manifest = prepare(
        tmp_path / "raw", tmp_path / "data", PreparationSettings(size=128, workers=1)
    )
    for kind, mode, index in (("rgb", "RGB", 0), ("thermal", "L", 1)):
        tables = [pq.read_table(path) for path in manifest.shard_paths(kind, "train")]
        rows = {row["name"]: row for table in tables for row in table.to_pylist()}
        scene = layout_trees.scene(30 if kind == "rgb" else 99)[index].resize((128, 128), BICUBIC)
        row = rows["rgbTrain2-000030"]
        stored = np.frombuffer(row[kind], np.uint8).astype(int).reshape(-1, 128, 128)
        expected = np.asarray(scene.convert(mode)).reshape(128, 128, -1).transpose(2, 0, 1)
        assert np.abs(stored - expected).mean() < 10
        assert row["recording"] == "rgbTrain2"


def test_official_only_recovers_no_pairs(tmp_path):
    layout_trees.flir_v2_scenes(tmp_path / "raw")
    manifest = prepare(
        tmp_path / "raw",
        tmp_path / "data",
        PreparationSettings(size=32, workers=1, official_only=True),
    )

    assert {entry.pairing for entry in manifest.recordings.values()} == {"official", None}
    # The videos are assigned to all splits; the stills keep their authors' split.
    assert sum(manifest.counts()["pairs"].values()) == 12
    assert manifest.counts()["rgb"] == {"train": 15, "val": 15, "test": 0}


def test_error_without_recovered_validation_pairs_names_official_only(tmp_path):
    layout_trees.flir_v2(tmp_path / "raw")
    with pytest.raises(DatasetError, match="--official-only, which assigns the official pairs"):
        prepare(tmp_path / "raw", tmp_path / "data", PreparationSettings(size=32, workers=1))


def test_verify_names_a_damaged_shard(dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")

    def verify():
        command = [sys.executable, ROOT / "process.py", "--verify", copy]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "Every shard has the checksum of its manifest" in verify().stdout
    shard = next(copy.glob("pairs/train-*.parquet"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    result = verify()

    assert result.returncode == 1
    assert f"{shard} is damaged" in result.stderr
    assert "Traceback" not in result.stderr
