"""Which pairs are believed, and how it is known."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image, ImageDraw

from thermal_search.dataset.agreement import edge_agreement
from thermal_search.dataset.preparation import prepare
from thermal_search.dataset.verification import AGREES, Scored, doubtful

ROOT = Path(__file__).parents[1]


def scene(seed, size=(120, 96)):
    """Boxes and discs, whose colours and temperatures have nothing to do with each other."""
    random = np.random.default_rng(seed)
    rgb, thermal = Image.new("RGB", size, (90, 90, 90)), Image.new("L", size, 90)
    for _ in range(25):
        x, y = random.integers(0, size[0]), random.integers(0, size[1])
        w, h = random.integers(8, 40, 2)
        box = [int(x - w // 2), int(y - h // 2), int(x + w // 2), int(y + h // 2)]
        shape = "ellipse" if random.random() < 0.5 else "rectangle"
        getattr(ImageDraw.Draw(rgb), shape)(box, tuple(random.integers(0, 256, 3).tolist()))
        getattr(ImageDraw.Draw(thermal), shape)(box, int(random.integers(0, 256)))
    return rgb, thermal


def scored(*scores, pairing="recovered"):
    return [Scored("drive", f"{n:03d}", pairing, score) for n, score in enumerate(scores)]


def reasons(pairs):
    return [(int(d.pair.name), d.reason.split(":")[0]) for d in doubtful(pairs)]


def test_true_pairs_score_above_the_threshold_and_wrong_ones_below():
    scenes = [tuple(map(np.asarray, scene(seed))) for seed in range(12)]
    true = [edge_agreement(rgb, thermal) for rgb, thermal in scenes]
    wrong = [edge_agreement(scenes[n][0], scenes[n - 1][1]) for n in range(12)]

    assert min(true) > AGREES > max(wrong)


def test_inverting_thermal_changes_nothing_and_a_flat_picture_agrees_with_nothing():
    rgb, thermal = map(np.asarray, scene(1))

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
    trees.flir_v2(tmp_path / "raw")
    for split in ("Train", "Val"):
        folders = [
            tmp_path / "raw/FLIR_ADAS_v2" / f"images_{kind}_{split.lower()}" / "data"
            for kind in ("rgb", "thermal")
        ]
        for video, is_true in ((1, True), (2, False)):
            for n in (10, 20, 30, 40):
                pair = scene(n)[0], scene(n if is_true else 99)[1]
                for picture, folder, kind in zip(pair, folders, ("rgb", "ir"), strict=True):
                    picture.save(next(folder.glob(f"video-{kind}{split}{video}-frame-{n:06d}-*")))
    manifest = prepare(tmp_path / "raw", tmp_path / "data", size=64, workers=1)

    assert manifest.counts()["pairs"] == {"train": 4, "val": 4, "test": 12}
    dropped = manifest.dropped_pairs
    assert {item["recording"] for item in dropped} == {"rgbTrain2", "rgbVal2"}
    assert all(item["score"] < AGREES and "another scene" in item["reason"] for item in dropped)
    told = manifest.recordings
    assert told["rgbTrain1 (pairs)"]["pairing"] == "recovered"
    assert told["rgbTrain1 (pairs)"]["agreement"]["50%"] > AGREES
    assert told["rgbTest0 (pairs)"]["pairing"] == "official"


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
