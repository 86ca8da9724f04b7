"""Pairs among FLIR ADAS v2's stills, which their authors did not pair.

index.json leaves two traces of which RGB and thermal videos were recorded together: the description
of a thermal video holds `"RGB": "<id of the RGB video>"`, or the two file names differ only in
case, spaces and a suffix for the camera. Frames of equal index are then candidates only: an audit
found that a third of such pairs show different scenes or drift apart. `verification` decides.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts.source import Source, items, text

MAX_NAME = 255
"""A longer text is no file's name, and would take long to normalize."""

POINTER = re.compile(r'"RGB"\s*:\s*"([A-Za-z0-9]+)"')
EXTENSION = re.compile(r"\.(avi|zip|mp4|mov|mkv)$")
CAMERA = re.compile(r"(visible|thermal|rgb|ir|cam[0-9]*)$")


@dataclass(frozen=True)
class Shot:
    """One image, and its position in its video."""

    video: str
    index: int
    path: Path

    @property
    def name(self) -> str:
        return f"{self.video}-{self.index:06d}"


@dataclass(frozen=True)
class Still:
    rgb: Shot | None
    thermal: Shot | None
    recording: str
    """The RGB video of two that were recorded together: their frames stay in one split."""

    @property
    def name(self) -> str:
        shot = self.rgb or self.thermal
        assert shot
        return shot.name


def pair_stills(
    source: Source,
    indices: tuple[Path, Path],
    shots: tuple[Sequence[Shot], Sequence[Shot]],
) -> list[Still]:
    """Every still, with its partner if one can be recovered.

    `indices` are the index.json of RGB and thermal. Without them, or if only official pairs are
    wanted, no still has a partner.
    """
    rgb, thermal = shots
    present = {shot.video for shot in rgb}, {shot.video for shot in thermal}
    videos: dict[str, str] = {}
    if not source.official_only:
        videos = pair_videos(*(_videos(source, index) for index in indices), present=present)
    by_position = {(shot.video, shot.index): shot for shot in reversed(rgb)}
    stills: list[Still] = []
    used: set[Shot] = set()
    for shot in thermal:
        video = videos.get(shot.video)
        partner = by_position.get((video, shot.index)) if video else None
        if partner in used:
            partner = None  # a second image with this index
        if partner:
            used.add(partner)
        stills.append(Still(partner, shot, video or shot.video))
    return stills + [Still(shot, None, shot.video) for shot in rgb if shot not in used]


def pair_videos(
    rgb: Iterable[Any], thermal: Iterable[Any], *, present: tuple[set[str], set[str]]
) -> dict[str, str]:
    """The RGB video of each thermal video that has one, one to one.

    A pointer in a description counts more than equal names. `present` are the ids that have frames.
    """
    rgb, thermal = list(rgb), list(thermal)
    by_pointer = [
        (text(video, "id"), match[1])
        for video in thermal
        if (match := POINTER.search(text(video, "description")))
    ]
    names = _unique_names(rgb)
    by_name = [
        (video_id, names[name])
        for name, video_id in _unique_names(thermal).items()
        if name in names
    ]
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for thermal_id, rgb_id in [*sorted(by_pointer), *sorted(by_name)]:
        is_present = rgb_id in present[0] and thermal_id in present[1]
        if is_present and thermal_id not in pairs and rgb_id not in taken:
            pairs[thermal_id] = rgb_id
            taken.add(rgb_id)
    return pairs


def normalized(name: str) -> str:
    """A video's file name without what differs between the cameras of one drive."""
    bare = re.sub(r"[\s_\-()]+", "", EXTENSION.sub("", name.strip().lower()))
    while (shorter := CAMERA.sub("", bare)) != bare:
        bare = shorter
    return bare


def _unique_names(videos: Iterable[Any]) -> Mapping[str, str]:
    """Video ids by normalized name; names that several videos share are omitted."""
    named = [
        (normalized(name), text(video, "id"))
        for video in videos
        if len(name := text(video, "filename")) <= MAX_NAME
    ]
    counts = Counter(name for name, _ in named)
    return {name: video for name, video in named if name and video and counts[name] == 1}


def _videos(source: Source, index: Path) -> list[Any]:
    # Most of the file is annotations of ten thousand frames: they are dropped while it is parsed.
    if not index.is_file():
        return []
    try:
        return items(source.read_json(index, keep=_video_keys), "videos")
    except DatasetError as error:
        source.mark_unusable(index, f"unusable, so its stills have no partners ({error})")
        return []


def _video_keys(record: dict[str, Any]) -> dict[str, Any]:
    wanted = ("videos", "id", "filename", "description")
    return {key: record[key] for key in wanted if key in record}
