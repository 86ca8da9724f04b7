"""Small recordings of two folders, and process.py as a command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PROCESS = Path(__file__).parents[1] / "process.py"


def run(*arguments):
    """process.py in a process of its own, with one worker."""
    return subprocess.run(
        [sys.executable, str(PROCESS), *map(str, arguments), "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def image(path, seed=0, size=(40, 30), mode="RGB"):
    """Writes noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(random.integers(0, 256, shape, np.uint8)).save(path)


def folders(root, count=60, gap_every=15, size=(40, 30)):
    """Recordings of `gap_every` frames each, with gaps between their file numbers."""
    for n in range(count):
        number = n + 1000 * (n // gap_every)
        image(root / "visible" / f"FLIR_{number:05}.png", n, size)
        image(root / "infrared" / f"FLIR_{number:05}.png", n + 1, size, "L")
    return root
