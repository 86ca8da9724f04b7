"""The tour: everything the platform does, small, on pictures it draws itself."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from thermal_search.demo.scenes import draw_recording
from thermal_search.errors import SearchError

SIZE = 32
TRIALS = 9
IMAGES = 192
EVALUATE_EVERY = 64


def tour(output: Path) -> None:
    """Draws a recording and takes it through the verbs, as a user would type them."""
    if output.exists() and any(output.iterdir()):
        raise SearchError(f"{output} must be empty: choose another folder with --output.")
    started = time.monotonic()
    recording, dataset = output / "recording", output / "dataset"
    search, thermal = output / "search", output / "thermal"
    print(f"Drawing a recording of road scenes, RGB and thermal, in {recording}", flush=True)
    draw_recording(recording)
    _run("process.py", str(recording), str(dataset), "--size", str(SIZE))
    _run(
        "thermal-search",
        "search",
        *("--data", str(dataset), "--output", str(search)),
        *("--architectures", "pix2pix,cyclegan,wgan", "--trials", str(TRIALS)),
        *("--images", str(IMAGES), "--evaluate-every", str(EVALUATE_EVERY)),
        *("--features", "efficientnet-lite0"),
    )
    _run("thermal-search", "export", str(search))
    _run(
        "thermal-search",
        "translate",
        str(search / "generator"),
        str(recording / "images_rgb_val" / "data"),
        str(thermal),
    )
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    print(f"\nDone in {minutes}:{seconds:02}. Look at {thermal}, and compare the trials:")
    print(f"  thermal-search ui {search}")
