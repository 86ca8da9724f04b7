"""KAIST Multispectral Pedestrian (Hwang et al., CVPR 2015).

    set00/V000/visible/I00000.jpg    set00/V000/lwir/I00000.jpg

Sets 00 to 05 are for training, 06 to 11 for testing. One V folder is one drive. The tree may also
be under images/.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.source import Source

FIRST_TEST_SET = 6


def find(root: Path) -> Path | None:
    for folder in (root, root / "images"):
        if folder.is_dir() and next(_drives(folder), None):
            return folder
    return None


def read(source: Source, root: Path) -> list[SourceFrame]:
    frames: list[SourceFrame] = []
    for number, drive in _drives(root):
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


def _drives(root: Path) -> Iterator[tuple[int, Path]]:
    for group in sorted(root.glob("set[0-9][0-9]")):
        if re.fullmatch(r"set\d\d", group.name, re.ASCII) and group.is_dir():
            for drive in sorted(group.glob("V[0-9]*")):
                if (drive / "visible").is_dir() and (drive / "lwir").is_dir():
                    yield int(group.name[3:]), drive
