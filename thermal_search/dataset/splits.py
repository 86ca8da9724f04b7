"""Train, validation and test: whole recordings, because neighbouring frames are nearly the same."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from thermal_search.dataset.layouts import Frame
from thermal_search.dataset.manifest import Split
from thermal_search.errors import DatasetError

SHARES: Mapping[Split, float] = {"train": 0.70, "val": 0.15, "test": 0.15}
SMALLEST_PART = 2


def split(frames: Sequence[Frame]) -> tuple[list[Frame], list[str]]:
    """Every frame with its split, and notes on what a reader should know.

    The pairs' recordings are dealt out so that the parts are nearly 70 / 15 / 15 of the frames.
    Stills keep the split their authors gave them. The result is a pure function of the frames.
    """
    notes: list[str] = []
    pairs = Counter(frame.recording for frame in frames if frame.kind == "pairs")
    if len(pairs) == 1:
        frames = _cut(frames)
        pairs = Counter(frame.recording for frame in frames if frame.kind == "pairs")
        notes.append(
            "All pairs are of one recording: it was cut into three runs of frames, whose ends are "
            "alike. Scores are flattered; more recordings would tell more."
        )
    elif len(pairs) == 2:
        notes.append("Only two recordings have pairs: there is no test split.")
    place = _deal(pairs)
    return [
        frame if frame.split else replace(frame, split=place[frame.recording]) for frame in frames
    ], notes


def _deal(recordings: Mapping[str, int]) -> dict[str, Split]:
    total = sum(recordings.values())
    wanted: dict[Split, float] = {name: share * total for name, share in SHARES.items()}
    place: dict[str, Split] = {}
    # The largest first, each to the part that lacks most: small ones then even out the rest.
    for recording, count in sorted(recordings.items(), key=lambda item: (-item[1], item[0])):
        neediest = max(wanted, key=lambda name: wanted[name])
        place[recording] = neediest
        wanted[neediest] -= count
    emptiable: list[Split] = ["val", "test"]
    for name in emptiable:
        training = [recording for recording in place if place[recording] == "train"]
        if name not in place.values() and len(training) > 1:
            place[min(training, key=lambda r: (recordings[r], r))] = name
    return place


def _cut(frames: Sequence[Frame]) -> list[Frame]:
    pairs = [frame for frame in frames if frame.kind == "pairs"]
    others = [frame for frame in frames if frame.kind != "pairs"]
    if len(pairs) < 3 * SMALLEST_PART:
        raise DatasetError(
            f"A dataset needs at least {3 * SMALLEST_PART} pairs to be split, but has {len(pairs)}."
        )
    edge = max(SMALLEST_PART, round(len(pairs) * SHARES["val"]))
    parts: list[tuple[Split, list[Frame]]] = [
        ("train", pairs[: -2 * edge]),
        ("val", pairs[-2 * edge : -edge]),
        ("test", pairs[-edge:]),
    ]
    return others + [
        replace(frame, recording=f"{frame.recording}/{name}", split=name)
        for name, part in parts
        for frame in part
    ]
