"""process.py keeps its word: killed, out of room, in its own way, or given files that mean ill."""

import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import interrupted
import layout_trees
import numpy as np
import pytest
from PIL import Image

from thermal_search.data.manifest import read_manifest, verify
from thermal_search.errors import DatasetError
from thermal_search.preparation.prepare import prepare

PROCESS = Path(__file__).parents[1] / "process.py"
SIZE = 32
MOMENTS = 6


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A recording of pairs, some of which are dropped, and of frames without a partner."""
    return layout_trees.flir_v2_scenes(tmp_path_factory.mktemp("faults") / "raw")


@pytest.fixture(scope="module")
def undisturbed(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    # Of the name that others will have: the manifest holds no other trace of the place.
    told = folder / "told"
    interrupted.start(raw, folder / "data", told=told, size=SIZE).join()
    return contents(folder / "data"), int(told.read_text())


def test_killed_at_any_moment_the_second_run_ends_the_same_to_the_byte(raw, undisturbed, tmp_path):
    expected, steps = undisturbed
    # The first step, the last one, and some between.
    moments = [1, steps, *random.Random(0).sample(range(2, steps), MOMENTS)]
    assert steps > 40
    for moment in moments:
        output = tmp_path / f"{moment}" / "data"
        output.parent.mkdir()
        killed = interrupted.start(raw, output, step=moment, signal=signal.SIGKILL, size=SIZE)
        killed.join()

        assert killed.exitcode == -signal.SIGKILL
        # All of it or nothing.
        assert not output.exists() or contents(output) == expected
        prepare(raw, output, size=SIZE, workers=1)
        assert contents(output) == expected
        assert list(output.parent.iterdir()) == [output]


def test_killed_again_and_again_it_ends_the_same(raw, undisturbed, tmp_path):
    output = tmp_path / "data"
    for moment in range(3, 43, 8):
        killed = interrupted.start(raw, output, step=moment, signal=signal.SIGKILL, size=SIZE)
        killed.join()
        if killed.exitcode == 0:
            break
    prepare(raw, output, size=SIZE, workers=1)

    assert contents(output) == undisturbed[0]


def test_a_second_run_at_once_is_refused_and_the_first_ends_right(raw, undisturbed, tmp_path):
    output = tmp_path / "data"
    first = interrupted.start(raw, output, step=20, signal=signal.SIGSTOP, size=SIZE)
    interrupted.wait_until_stopped(first)
    try:
        with pytest.raises(DatasetError, match="another run is at work on it"):
            prepare(raw, output, size=SIZE, workers=1)
    finally:
        os.kill(first.pid, signal.SIGCONT)
        first.join()

    assert contents(output) == undisturbed[0]


@pytest.mark.parametrize("moment", [1, 2])
def test_a_run_that_starts_while_another_ends_finds_the_dataset(raw, undisturbed, tmp_path, moment):
    output, told = tmp_path / "data", tmp_path.with_suffix(".told")
    late = interrupted.start(raw, output, step=moment, signal=signal.SIGSTOP, told=told, size=SIZE)
    interrupted.wait_until_stopped(late)
    try:
        prepare(raw, output, size=SIZE, workers=1)
    finally:
        os.kill(late.pid, signal.SIGCONT)
        late.join()
    answer = told.read_text()

    assert answer.isdigit() or "another run" in answer
    assert contents(output) == undisturbed[0]
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("largest", [10, 2000, 20_000])
def test_a_file_that_cannot_grow_is_one_sentence_and_room_mends_it(
    raw, undisturbed, tmp_path, largest
):
    output, told = tmp_path / "data", tmp_path / "told"
    interrupted.start(raw, output, largest_file=largest, told=told, size=SIZE).join()
    answer = told.read_text()

    assert "cannot be written (" in answer
    assert "The same command goes on where it was." in answer
    assert "\n" not in answer
    assert not output.exists()
    prepare(raw, output, size=SIZE, workers=1)
    assert contents(output) == undisturbed[0]


def test_a_full_disk_is_one_sentence_and_room_mends_it(raw, undisturbed, tmp_path):
    disk, kept, told = (tmp_path / name for name in ("disk", "kept", "told"))
    interrupted.start_on_small_disk(raw, disk, kept, told, room=100_000, size=SIZE).join()
    answer = told.read_text()
    if answer.startswith("cannot mount"):
        pytest.skip(answer)

    assert answer.startswith("['data.partial'] ")
    assert "cannot be written (" in answer
    assert "No space left on device" in answer
    assert "\n" not in answer
    assert contents(kept) == undisturbed[0]


def bomb(width, height):
    """A PNG of some bytes that says it has so many pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_files_that_mean_ill_are_named_and_counted_and_none_is_read(tmp_path):
    root, secret = tmp_path / "raw", tmp_path / "secret.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(secret)
    for n in range(40):
        for kind in ("visible", "infrared"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(root / kind / f"{n:02}.jpg", quality=95)
    faults = {
        "00": (bomb(30_000, 30_000), "too large to be an image"),
        "01": (bomb(10_000, 10_000), "too large to be an image"),
        "02": ((root / "visible" / "02.jpg").read_bytes()[:900], "corrupt (image file is trunc"),
        "03": (b"", "corrupt (the file is empty)"),
        "04": (b"MZ not an image\0" * 50, "corrupt (not an image)"),
        "05": (None, "a link that leads out of the recording"),
    }
    for stem, (content, _) in faults.items():
        file = root / "visible" / f"{stem}.jpg"
        file.unlink()
        if content is None:
            file.symlink_to(secret)
        else:
            file.write_bytes(content)
    flags = ["--size", "32", "--max-bad", "0.3", "--workers", "1"]
    ran = subprocess.run(
        [sys.executable, PROCESS, root, tmp_path / "data", *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    manifest = read_manifest(tmp_path / "data")
    verify(manifest)
    reasons = {entry["file"]: entry["reason"] for entry in manifest.left_out}
    for stem, (_, reason) in faults.items():
        assert reasons.pop(f"visible/{stem}.jpg").startswith(reason)
    # What the link left alone.
    assert reasons == {"infrared/05.jpg": "no RGB partner"}
    assert "left out 7:" in ran.stdout
    assert sum(manifest.counts()["pairs"].values()) == 34


def test_a_map_that_points_outside_is_told_and_nothing_is_read_there(raw, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(raw, root)
    file = root / "rgb_to_thermal_vid_map.json"
    name = layout_trees.flir_name("rgbTest0", 0, "r00")
    told = file.read_text()
    file.write_text(told.replace(f'"{name}"', '"../../../secret.jpg"'))
    layout_trees.image(tmp_path / "secret.jpg")
    manifest = prepare(root, tmp_path / "data", size=SIZE, workers=1)

    assert [(item["file"], item["reason"]) for item in manifest.left_out] == [
        (
            f"rgb_to_thermal_vid_map.json: ('../../../secret.jpg', "
            f"'{layout_trees.flir_name('irTest0', 0, 't00')}')",
            "must be two plain file names",
        )
    ]
    assert manifest.count("pairs", "test") + manifest.count("pairs", "val") < 12 + 8
