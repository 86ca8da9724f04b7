"""One alignment per recording: the median over sampled frames, and the error that remains."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from thermal_search.data.manifest import RecordingAlignment
from thermal_search.image_files import Pixels, Unusable
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
    parameters_of,
)
from thermal_search.preparation.frame_images import open_pair
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.pool import Pool

ESTIMATION_FRAMES, TEST_FRAMES = 24, 12
"""Frames of a recording on which its alignment is estimated, and others on which it is measured."""

MIN_FRAMES = 3
MIN_SCORE = 0.1
"""Least score of a fine match that counts: wrong scenes stay below."""


@dataclass(frozen=True)
class MeasuredAlignment:
    """The alignment of one recording, and its error."""

    recording: str
    alignment: Alignment | None
    """None if none was found."""

    remaining_error: float | None
    """Distance from thermal to RGB after the alignment: in pixels at the dataset's size, at the
    corner where it is largest, in the median over frames. None if too few frames could be matched.
    """

    median_deviation: float | None
    """Median over frames of a frame's distance from that median, in the same pixels."""

    frames: int
    """Frames that were measured."""

    def entry(self) -> RecordingAlignment:
        """For the manifest."""
        return RecordingAlignment(
            alignment=parameters_of(self.alignment) if self.alignment else None,
            remaining_error_px=_rounded(self.remaining_error),
            median_deviation_px=_rounded(self.median_deviation),
            frames_measured=self.frames,
        )


def align_recordings(
    frames: Sequence[SourceFrame], known: Mapping[str, Alignment] | None, size: int, pool: Pool
) -> Iterable[MeasuredAlignment]:
    """The alignment of every recording of pairs: known (`*`: of any other), or else estimated."""
    recordings: dict[str, list[SourceFrame]] = {}
    for frame in sorted(frames, key=lambda frame: (frame.recording, frame.moment)):
        if frame.kind == "pairs":
            recordings.setdefault(frame.recording, []).append(frame)
    samples = [_sample(members) for members in recordings.values()]
    return pool.map(partial(_align, known=known, size=size), samples)


def _sample(frames: Sequence[SourceFrame]) -> list[SourceFrame]:
    count = min(len(frames), ESTIMATION_FRAMES + TEST_FRAMES)
    return [frames[index * len(frames) // count] for index in range(count)]


def _align(
    frames: Sequence[SourceFrame], *, known: Mapping[str, Alignment] | None, size: int
) -> MeasuredAlignment:
    cv2.setNumThreads(1)  # Sums in the same order, and one core per process.
    recording = frames[0].recording
    pairs = [pair for frame in frames if (pair := _grey_pair(frame))]
    if known is None:
        # Every third frame is held out, to measure on.
        is_small = len(pairs) < 3 * MIN_FRAMES
        used = [pair for index, pair in enumerate(pairs) if index % 3 or is_small]
        box = estimate_box([(rgb, thermal) for rgb, thermal, _ in used])
        alignment = overlap(box) if box else None
        tested = pairs if is_small else pairs[::3]
    else:
        alignment = known.get(recording, known.get("*"))
        tested = pairs[:: max(1, len(pairs) // TEST_FRAMES)]
    if alignment is None:
        return MeasuredAlignment(recording, None, None, None, 0)
    return _measure(recording, alignment, tested, size)


def estimate_box(pairs: Sequence[tuple[Pixels, Pixels]]) -> Box | None:
    """The position of thermal in RGB, from gray pairs of one recording; None if it is not found.

    The median is right as long as more than half of the frames are matched correctly. Every stage
    starts all frames from the median of the previous stage.
    """
    if len(pairs) < MIN_FRAMES:
        return None
    box = _median([search(*pair) for pair in pairs])
    fine = [match for pair in pairs if (match := search_near(*pair, box)).score >= MIN_SCORE]
    if len(fine) < MIN_FRAMES:
        return None
    box = _median(fine)
    refined = [match for pair in pairs if (match := refine(*pair, box))]
    return _median(refined) if len(refined) >= MIN_FRAMES else box


def _measure(
    recording: str,
    alignment: Alignment,
    pairs: Sequence[tuple[Pixels, Pixels, tuple[int, int]]],
    size: int,
) -> MeasuredAlignment:
    matches: list[Match] = []
    for rgb, thermal, rgb_size in pairs:
        try:
            cut = alignment.cut(rgb[..., None], thermal[..., None], rgb_size)
        except Unusable:
            continue
        grey_rgb, grey_thermal = (
            np.ascontiguousarray(image.reshape(image.shape[:2])) for image in cut
        )
        match = search_near(grey_rgb, grey_thermal, WHOLE)
        if match.score >= MIN_SCORE:
            matches.append(match)
    if len(matches) < MIN_FRAMES:
        return MeasuredAlignment(recording, alignment, None, None, len(matches))
    median = _median(matches)
    deviation = float(np.median([distance(match.box, median, size) for match in matches]))
    remaining = distance(median, WHOLE, size)
    return MeasuredAlignment(recording, alignment, remaining, deviation, len(matches))


def _grey_pair(frame: SourceFrame) -> tuple[Pixels, Pixels, tuple[int, int]] | None:
    """RGB and thermal as gray uint8 [height, width], and the RGB image's width and height."""
    try:
        rgb, thermal = open_pair(frame)
    except Unusable:
        return None  # The manifest will list it: shards are made of all frames.
    size = (rgb.shape[1], rgb.shape[0])
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), thermal, size


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _median(matches: Sequence[Match]) -> Box:
    left, top, right, bottom = np.median([match.box for match in matches], axis=0).tolist()
    return left, top, right, bottom
