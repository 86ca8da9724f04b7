"""Pairs by equal names."""

from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.contents import Pairing, SourceFrame
from thermal_search.preparation.layouts.recordings import BY_AUTHORS, Recordings, recognize
from thermal_search.preparation.layouts.source import Source


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
    folder: str = "",
) -> list[SourceFrame]:
    """A frame for every stem that both have.

    An image without a partner is unusable, or with `keep_single` a frame of its own. `recording`
    gives the recording of a stem; by default recordings are recognized by file names, in
    each folder by itself. `folder` is the folder around both kinds, if there are several.
    """
    stems = sorted(rgb.keys() | thermal.keys() if keep_single else rgb.keys() & thermal.keys())
    if not keep_single:
        for stem in sorted(rgb.keys() ^ thermal.keys()):
            kind = "thermal" if stem in rgb else "RGB"
            source.mark_unusable(rgb.get(stem) or thermal[stem], f"no {kind} partner")
    recordings = Recordings()
    for _, members in groupby(sorted(stems, key=_parent), key=_parent):
        recordings.add(recognize(members))
    source.contents.recognized_by |= {BY_AUTHORS} if recording else recordings.bases
    # File numbers repeat in folders: their names and the split distinguish the recordings.
    prefix = "".join(f"{part}/" for part in (split, folder) if part)
    return [
        SourceFrame(
            rgb.get(stem),
            thermal.get(stem),
            recording=f"{prefix}{recording(stem) if recording else recordings.recording[stem]}",
            name=stem,
            position=recordings.position[stem],
            split=split,
            same_size=same_size,
            pairing=pairing,
            radiometric=(radiometric or {}).get(stem) if stem in thermal else None,
        )
        for stem in stems
    ]


def _parent(stem: str) -> str:
    return stem.rpartition("/")[0]
