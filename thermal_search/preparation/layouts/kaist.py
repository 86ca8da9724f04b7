"""KAIST Multispectral Pedestrian (Hwang et al., CVPR 2015).

    set00/V000/visible/I00000.jpg    set00/V000/lwir/I00000.jpg

Sets 00 to 05 are for training, 06 to 11 for testing. One V folder is one drive. The tree is found
under images/ too.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.source import Source

FIRST_TEST_SET = 6


def find(root: Path) -> Path | None:
    for place in (root, root / "images"):
        if place.is_dir() and next(_drives(place), None):
            return place
    return None


def read(source: Source, place: Path) -> list[Frame]:
    frames: list[Frame] = []
    for number, drive in _drives(place):
        recording = f"{drive.parent.name}/{drive.name}"
        frames += pair_by_stem(
            source,
            source.by_stem(drive / "visible"),
            source.by_stem(drive / "lwir"),
            pairing="official",
            split="train" if number < FIRST_TEST_SET else "test",
            same_size=True,
            recording=lambda _, recording=recording: recording,
        )
    return frames


def _drives(place: Path) -> Iterator[tuple[int, Path]]:
    for group in sorted(place.glob("set[0-9][0-9]")):
        if re.fullmatch(r"set\d\d", group.name, re.ASCII) and group.is_dir():
            for drive in sorted(group.glob("V[0-9]*")):
                if (drive / "visible").is_dir() and (drive / "lwir").is_dir():
                    yield int(group.name[3:]), drive
