"""Pairs by equal names, and which of them one drive recorded."""

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.frame import Frame, Pairing
from thermal_search.preparation.layouts.source import Source

GAP_BETWEEN_RECORDINGS = 50
"""Numbers missing between two files of a folder that make them different recordings."""


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
) -> list[Frame]:
    """A frame for every stem that both have.

    A stem that one of them lacks is left out, or a frame without a partner with `keep_single`.
    `recording` names the recording of a stem; by default drives are told apart by the numbers.
    """
    stems = sorted(rgb.keys() | thermal.keys() if keep_single else rgb.keys() & thermal.keys())
    if not keep_single:
        for stem in sorted(rgb.keys() ^ thermal.keys()):
            kind = "thermal" if stem in rgb else "RGB"
            source.leave_out(rgb.get(stem) or thermal[stem], f"no {kind} partner")
    place = {stem: recording(stem) for stem in stems} if recording else drives(stems)
    # Authors number their train and val folders alike: the split keeps such recordings apart.
    prefix = f"{split}/" if split else ""
    return [
        Frame(
            rgb.get(stem),
            thermal.get(stem),
            recording=f"{prefix}{place[stem]}",
            name=stem,
            split=split,
            same_size=same_size,
            pairing=pairing,
            radiometric=(radiometric or {}).get(stem) if stem in thermal else None,
        )
        for stem in stems
    ]


def drives(stems: Iterable[str]) -> dict[str, str]:
    """Frames close in number come from one drive; a gap in the numbers begins another."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for stem in stems:
        # Sixteen digits are more than any camera counts, and Python refuses to read thousands.
        match = re.fullmatch(r"(.*?)(\d{1,16})\D*", stem, re.DOTALL | re.ASCII)
        prefix, number = (match[1], int(match[2])) if match else (stem, 0)
        numbered.setdefault(prefix, []).append((number, stem))
    recording: dict[str, str] = {}
    for members in numbered.values():
        members.sort()
        current = members[0][1]
        recording[current] = current
        for (before, _), (number, stem) in pairwise(members):
            if number - before > GAP_BETWEEN_RECORDINGS:
                current = stem
            recording[stem] = current
    return recording
