"""process.py keeps its promises if it is killed, runs out of space, runs twice, or reads malicious
files."""

import os
import random
import shutil
import signal
import struct
import zlib

import interrupted
import layout_trees
import numpy as np
import pytest
from PIL import Image
from recordings import run

from thermal_search.data.manifest import read_manifest, verify_checksums
from thermal_search.errors import DatasetError
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings

SIZE = 32
MOMENTS = 6


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """A recording of pairs, some of which are rejected, and of frames without a partner."""
    return layout_trees.flir_v2_scenes(tmp_path_factory.mktemp("faults") / "raw")


@pytest.fixture(scope="module")
def undisturbed(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    # With the name that the others will have: the manifest holds no other trace of the path.
    report = folder / "report"
    interrupted.start(raw, folder / "data", report=report, size=SIZE).join()
    return contents(folder / "data"), int(report.read_text())


def test_run_after_a_kill_at_any_step_gives_the_same_bytes(raw, undisturbed, tmp_path):
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
        # The complete dataset or none.
        assert not output.exists() or contents(output) == expected
        prepare(raw, output, PreparationSettings(size=SIZE, workers=1))
        assert contents(output) == expected
        assert list(output.parent.iterdir()) == [output]


def test_repeatedly_killed_run_gives_the_same_bytes(raw, undisturbed, tmp_path):
    output = tmp_path / "data"
    for moment in range(3, 43, 8):
        killed = interrupted.start(raw, output, step=moment, signal=signal.SIGKILL, size=SIZE)
        killed.join()
        if killed.exitcode == 0:
            break
    prepare(raw, output, PreparationSettings(size=SIZE, workers=1))

    assert contents(output) == undisturbed[0]


def test_second_run_at_once_is_refused_and_the_first_finishes(raw, undisturbed, tmp_path):
    output = tmp_path / "data"
    first = interrupted.start(raw, output, step=20, signal=signal.SIGSTOP, size=SIZE)
    interrupted.wait_until_stopped(first)
    try:
        with pytest.raises(DatasetError, match="another run is working on it"):
            prepare(raw, output, PreparationSettings(size=SIZE, workers=1))
    finally:
        os.kill(first.pid, signal.SIGCONT)
        first.join()

    assert contents(output) == undisturbed[0]


@pytest.mark.parametrize("moment", [1, 2])
def test_run_that_starts_while_another_ends_finds_the_dataset(raw, undisturbed, tmp_path, moment):
    output, report = tmp_path / "data", tmp_path.with_suffix(".report")
    late = interrupted.start(
        raw, output, step=moment, signal=signal.SIGSTOP, report=report, size=SIZE
    )
    interrupted.wait_until_stopped(late)
    try:
        prepare(raw, output, PreparationSettings(size=SIZE, workers=1))
    finally:
        os.kill(late.pid, signal.SIGCONT)
        late.join()
    answer = report.read_text()

    assert answer.isdigit() or "another run" in answer
    assert contents(output) == undisturbed[0]
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize("largest", [10, 2000, 20_000])
def test_file_size_limit_is_one_sentence_and_the_next_run_resumes(
    raw, undisturbed, tmp_path, largest
):
    output, report = tmp_path / "data", tmp_path / "report"
    interrupted.start(raw, output, largest_file=largest, report=report, size=SIZE).join()
    answer = report.read_text()

    assert "cannot be written (" in answer
    assert "the same command resumes the preparation." in answer
    assert "\n" not in answer
    assert not output.exists()
    prepare(raw, output, PreparationSettings(size=SIZE, workers=1))
    assert contents(output) == undisturbed[0]


def test_full_disk_is_one_sentence_and_the_next_run_resumes(raw, undisturbed, tmp_path):
    disk, copy, report = (tmp_path / name for name in ("disk", "copy", "report"))
    interrupted.start_on_small_disk(raw, disk, copy, report, room=100_000, size=SIZE).join()
    answer = report.read_text()
    if answer.startswith("cannot mount"):
        pytest.skip(answer)

    assert answer.startswith("['data.partial'] ")
    assert "cannot be written (" in answer
    assert "No space left on device" in answer
    assert "\n" not in answer
    assert contents(copy) == undisturbed[0]


def bomb(width, height):
    """A small PNG whose header claims so many pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_malicious_files_are_listed_and_none_is_read(tmp_path):
    root, secret = tmp_path / "raw", tmp_path / "secret.png"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(secret)
    for n in range(40):
        for kind in ("visible", "infrared"):
            (root / kind).mkdir(parents=True, exist_ok=True)
            pixels = noise if kind == "visible" else noise[..., 0]
            Image.fromarray(pixels).save(root / kind / f"{n:02}.jpg", quality=95)
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
    ran = run(root, tmp_path / "data", "--size", 32, "--max-unusable", 0.3)
    assert ran.returncode == 0, ran.stderr
    manifest = read_manifest(tmp_path / "data")
    verify_checksums(manifest)
    reasons = {file.file: file.reason for file in manifest.unusable_files}
    for stem, (_, reason) in faults.items():
        assert reasons.pop(f"visible/{stem}.jpg").startswith(reason)
    # The partner of the link.
    assert reasons == {"infrared/05.jpg": "no RGB partner"}
    assert "unusable 7:" in ran.stdout
    assert sum(manifest.counts()["pairs"].values()) == 34 - 2  # one at each cut


def test_map_that_points_outside_is_listed_and_not_followed(raw, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(raw, root)
    file = root / "rgb_to_thermal_vid_map.json"
    name = layout_trees.flir_name("rgbTest0", 0, "r00")
    text = file.read_text()
    file.write_text(text.replace(f'"{name}"', '"../../../secret.jpg"'))
    layout_trees.image(tmp_path / "secret.jpg")
    manifest = prepare(root, tmp_path / "data", PreparationSettings(size=SIZE, workers=1))

    assert [(file.file, file.reason) for file in manifest.unusable_files] == [
        (
            f"rgb_to_thermal_vid_map.json: ('../../../secret.jpg', "
            f"'{layout_trees.flir_name('irTest0', 0, 't00')}')",
            "must be two plain file names",
        )
    ]
    assert manifest.count("pairs", "test") + manifest.count("pairs", "val") < 12 + 8
