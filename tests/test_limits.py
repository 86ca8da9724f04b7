"""A file from others takes at most 10 s and 1 GB, however much it claims."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MAX_SECONDS, MAX_MB = 10, 1000
SCRIPT = Path(__file__).parent / "limited_readers.py"
ROOT = SCRIPT.parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each case took, by its name."""
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path_factory.mktemp("inputs"))],
        env={"PYTHONPATH": f"{ROOT}:{SCRIPT.parent}", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_no_input_takes_long_or_much_memory(results):
    assert len(results) > 60
    assert [r for r in results if r["seconds"] > MAX_SECONDS or r["mb"] > MAX_MB] == []


def test_each_input_is_read_or_refused_in_a_sentence(results):
    assert [r for r in results if "\n" in r["sentence"] or "signal" in r["sentence"]] == []


def test_only_images_that_are_whole_are_read(results):
    read = {result["name"] for result in results if not result["sentence"]}

    assert {name for name in read if "png" in name} == {
        "transparent.png as an image",
        "palette.png as an image",
        "rgb16.png as an image",
    }
    assert "large.jpg as an image" in read
    assert not {name for name in read if name.startswith(("claims", "bomb", "pages"))}
