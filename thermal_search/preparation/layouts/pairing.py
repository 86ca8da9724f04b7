"""Pairs by equal names, and recordings by file numbers."""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.contents import Pairing, SourceFrame
from thermal_search.preparation.layouts.source import Source

GAP_BETWEEN_RECORDINGS = 50
"""Gap between the numbers of two files of a folder above which they are of two recordings."""


def pair_by_stem(
    source: Source,
    rgb: Mapping[str, Path],
    thermal: Mapping[str, Path],
    *,
    pairing: Pairing,
    split: Split | None = None,
    same_size: bool = False,
    radiometric: Mapping[str, Path] | None = None,
    keep_single: bool = False,
    recording: Callable[[str], str] | None = None,
) -> list[SourceFrame]:
    """A frame for every stem that both have.

    An image without a partner is unusable, or with `keep_single` a frame of its own. `recording`
    gives the recording of a stem; by default recordings are separated by file numbers.
    """
    stems = sorted(rgb.keys() | thermal.keys() if keep_single else rgb.keys() & thermal.keys())
    if not keep_single:
        for stem in sorted(rgb.keys() ^ thermal.keys()):
            kind = "thermal" if stem in rgb else "RGB"
            source.mark_unusable(rgb.get(stem) or thermal[stem], f"no {kind} partner")
    recordings = {stem: recording(stem) for stem in stems} if recording else drives(stems)
    # File numbers repeat in the train and val folders: the split distinguishes the recordings.
    prefix = f"{split}/" if split else ""
    return [
        SourceFrame(
            rgb.get(stem),
            thermal.get(stem),
            recording=f"{prefix}{recordings[stem]}",
            name=stem,
            split=split,
            same_size=same_size,
            pairing=pairing,
            radiometric=(radiometric or {}).get(stem) if stem in thermal else None,
        )
        for stem in stems
    ]


def drives(stems: Iterable[str]) -> dict[str, str]:
    """The recording of each stem: files close in number are of one drive, a gap begins another."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for stem in stems:
        # No camera counts beyond sixteen digits, and Python refuses to parse thousands of them.
        match = re.fullmatch(r"(.*?)(\d{1,16})\D*", stem, re.DOTALL | re.ASCII)
        prefix, number = (match[1], int(match[2])) if match else (stem, 0)
        numbered.setdefault(prefix, []).append((number, stem))
    recording: dict[str, str] = {}
    for members in numbered.values():
        members.sort()
        current = members[0][1]
        recording[current] = current
        for (previous, _), (number, stem) in pairwise(members):
            if number - previous > GAP_BETWEEN_RECORDINGS:
                current = stem
            recording[stem] = current
    return recording
