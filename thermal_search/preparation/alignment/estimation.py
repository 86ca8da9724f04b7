"""One alignment a recording: the median over sampled frames, and what error remains."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import cv2
import numpy as np

from thermal_search.preparation.alignment.edge_matching import (
    Match,
    distance,
    refine,
    search,
    search_near,
)
from thermal_search.preparation.alignment.geometry import (
    WHOLE,
    Alignment,
    Box,
    overlap,
)
from thermal_search.preparation.decoding import Pixels, Unusable
from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.resizing import open_pair

ESTIMATED_ON, MEASURED_ON = 24, 12
"""Frames of a recording that its alignment is estimated on, and others that test it."""

FEWEST = 3
CLEAR = 0.1
"""The score of a close match from which it counts: wrong scenes stay below."""


@dataclass(frozen=True)
class Found:
    """The alignment of one recording."""

    recording: str
    alignment: Alignment | None
    """None where it could not be found."""

    remaining: float | None
    """How far thermal still lies beside RGB: pixels at the dataset's size, at the worst corner of
    the median over frames. None where too few frames could be matched."""

    spread: float | None
    """The median over frames of a single frame's distance from that."""

    frames: int
    """Frames that were measured."""

    def told(self) -> dict[str, Any]:
        """For the manifest."""
        return {
            "alignment": None if self.alignment is None else asdict(self.alignment),
            "remaining_error_px": None if self.remaining is None else round(self.remaining, 2),
            "spread_px": None if self.spread is None else round(self.spread, 2),
            "frames_measured": self.frames,
        }


class Pool(Protocol):
    def map(
        self, function: Callable[[Sequence[Frame]], Found], items: Iterable[Sequence[Frame]]
    ) -> Iterable[Found]: ...


def align(
    frames: Sequence[Frame], given: Mapping[str, Alignment] | None, size: int, pool: Pool
) -> Iterable[Found]:
    """Every recording of pairs with its alignment: as `given` (`*`: any other), else estimated."""
    recordings: dict[str, list[Frame]] = {}
    for frame in sorted(frames, key=lambda frame: (frame.recording, frame.name)):
        if frame.kind == "pairs":
            recordings.setdefault(frame.recording, []).append(frame)
    samples = [_spread_over(members) for members in recordings.values()]
    return pool.map(partial(_align, given=given, size=size), samples)


def _spread_over(frames: Sequence[Frame]) -> list[Frame]:
    count = min(len(frames), ESTIMATED_ON + MEASURED_ON)
    return [frames[place * len(frames) // count] for place in range(count)]


def _align(frames: Sequence[Frame], *, given: Mapping[str, Alignment] | None, size: int) -> Found:
    cv2.setNumThreads(1)  # The same sums in the same order, and one core a process.
    recording = frames[0].recording
    pairs = [pair for frame in frames if (pair := _grey(frame))]
    if given is None:
        # Every third frame stays out, to measure on.
        kept = [pair for place, pair in enumerate(pairs) if place % 3 or len(pairs) < 3 * FEWEST]
        box = estimate([(rgb, thermal) for rgb, thermal, _ in kept])
        alignment = overlap(box) if box else None
        tested = pairs[::3] if len(pairs) >= 3 * FEWEST else pairs
    else:
        alignment = given.get(recording, given.get("*"))
        tested = pairs[:: max(1, len(pairs) // MEASURED_ON)]
    if alignment is None:
        return Found(recording, None, None, None, 0)
    return _measured(recording, alignment, tested, size)


def estimate(pairs: Sequence[tuple[Pixels, Pixels]]) -> Box | None:
    """Where thermal lies in RGB, from grey pairs of one recording; None where they do not say.

    The median stands as long as more than half of the frames are matched rightly, and every stage
    starts all frames afresh from the median of the stage before.
    """
    if len(pairs) < FEWEST:
        return None
    box = _median([search(*pair) for pair in pairs])
    close = [match for pair in pairs if (match := search_near(*pair, box)).score >= CLEAR]
    if len(close) < FEWEST:
        return None
    box = _median(close)
    fine = [match for pair in pairs if (match := refine(*pair, box))]
    return _median(fine) if len(fine) >= FEWEST else box


def _measured(
    recording: str,
    alignment: Alignment,
    pairs: Sequence[tuple[Pixels, Pixels, tuple[int, int]]],
    size: int,
) -> Found:
    matches: list[Match] = []
    for rgb, thermal, rgb_size in pairs:
        try:
            cut = alignment.cut(rgb[..., None], thermal[..., None], rgb_size)
        except Unusable:
            continue
        left, right = (np.ascontiguousarray(part.reshape(part.shape[:2])) for part in cut)
        match = search_near(left, right, WHOLE)
        if match.score >= CLEAR:
            matches.append(match)
    if len(matches) < FEWEST:
        return Found(recording, alignment, None, None, len(matches))
    middle = _median(matches)
    spread = float(np.median([distance(match.box, middle, size) for match in matches]))
    return Found(recording, alignment, distance(middle, WHOLE, size), spread, len(matches))


def _grey(frame: Frame) -> tuple[Pixels, Pixels, tuple[int, int]] | None:
    """RGB and thermal as grey uint8 [height, width], and the RGB image's width and height."""
    try:
        rgb, thermal = open_pair(frame)
    except Unusable:
        return None  # named when the shards are made
    size = (rgb.shape[1], rgb.shape[0])
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), thermal, size


def _median(matches: Sequence[Match]) -> Box:
    left, top, right, bottom = np.median([match.box for match in matches], axis=0).tolist()
    return left, top, right, bottom
