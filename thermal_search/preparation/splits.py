"""Train, validation and test: whole recordings, because neighboring frames are nearly the same."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from thermal_search.data.manifest import Split
from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts import Frame

Shares = Mapping[Split, float]

SHARES: Shares = {"train": 0.70, "val": 0.15, "test": 0.15}
SMALLEST_PART = 2
SHUFFLES = 64
"""Shuffled deals that are tried; the one nearest to the wanted shares is taken."""


def parse_shares(told: str) -> Shares:
    """`70,15,15`: what train, val and test weigh; test may be 0, train and val may not."""
    try:
        train, val, test = (float(part) for part in told.split(","))
    except ValueError:
        train = val = test = float("nan")
    if not (train > 0 and val > 0 and test >= 0 and train + val + test < float("inf")):
        raise DatasetError(
            f"--splits must be three numbers for train, val and test, such as 70,15,15, of which "
            f"only the last may be 0, but is {told}."
        )
    total = train + val + test
    return {"train": train / total, "val": val / total, "test": test / total}


def subsample(frames: Sequence[Frame], every: int) -> list[Frame]:
    """Of each recording, each kind by itself, the first frame and then every `every`-th."""
    if every < 1:
        raise DatasetError(f"--every must be 1 or more, but is {every}.")
    ordered = sorted(frames, key=lambda frame: (frame.kind, frame.recording, frame.name))
    return [
        frame
        for _, members in groupby(ordered, key=lambda frame: (frame.kind, frame.recording))
        for frame in list(members)[::every]
    ]


def split(
    frames: Sequence[Frame], shares: Shares = SHARES, seed: int = 0
) -> tuple[list[Frame], list[str]]:
    """Every frame with its split, and notes on what a reader should know.

    Recordings that their authors put somewhere stay there. The others are dealt out whole, so that
    the parts come near to `shares` of the pairs. A part that the authors did not make is taken from
    their train recordings; what they held back is never trained on. Frames without a partner follow
    their recording. A pure function of its arguments, whatever the order of the frames.
    """
    frames = sorted(frames, key=lambda frame: (frame.kind, frame.recording, frame.name))
    notes: list[str] = []
    place = _official(frames)
    free = {name: n for name, n in _pairs(frames).items() if name not in place}
    if len(free) == 1 and len(free) < len(_pairs(frames)):
        # Beside what the authors split, one more recording is one more to train on.
        place |= dict.fromkeys(free, "train")
    elif free:
        frames, place = _place(frames, free, shares, seed, place, notes)
    if lacking := _lacking(frames, place, shares):
        told = " and ".join(lacking)
        notes.append(f"The authors made no {told} split: it was taken from their train recordings.")
        given = {name: n for name, n in _pairs(frames).items() if place[name] == "train"}
        wanted: Shares = {"train": shares["train"], **{part: shares[part] for part in lacking}}
        frames, place = _place(frames, given, wanted, seed, place, notes)
    return [replace(f, split=place.get(f.recording, "train")) for f in frames], notes


def _official(frames: Sequence[Frame]) -> dict[str, Split]:
    """Where the authors put each recording; held back counts more than train, should it be both."""
    place: dict[str, Split] = {}
    parts: list[Split] = ["train", "val", "test"]
    for part in parts:
        place |= {frame.recording: part for frame in frames if frame.split == part}
    return place


def _lacking(frames: Sequence[Frame], place: Mapping[str, Split], shares: Shares) -> list[Split]:
    """The parts without pairs that the train part could spare some for."""
    made = {place[recording] for recording in _pairs(frames)}
    parts: list[Split] = ["val", "test"]
    lacking: list[Split] = [part for part in parts if part not in made and shares[part] > 0]
    trained = sum(place[recording] == "train" for recording in _pairs(frames))
    official = any(frame.split and frame.kind == "pairs" for frame in frames)
    return lacking if official and trained else []


def _place(
    frames: list[Frame],
    recordings: Mapping[str, int],
    shares: Shares,
    seed: int,
    place: Mapping[str, Split],
    notes: list[str],
) -> tuple[list[Frame], dict[str, Split]]:
    """Deals recordings out, cutting a single one by time."""
    if len(recordings) > 1:
        dealt = _deal(recordings, shares, seed)
        if missing := [part for part in shares if shares[part] > 0 and part not in dealt.values()]:
            notes.append(f"Only two recordings have pairs: there is no {missing[0]} split.")
        return frames, {**place, **dealt}
    ((recording, pairs),) = recordings.items()
    parts: list[Split] = [part for part in shares if shares[part] > 0]
    if pairs < SMALLEST_PART * len(parts) and parts[-1] == "test":
        parts.pop()
        notes.append(f"There are too few pairs ({pairs} of one recording) for a test split.")
    if parts == ["train"]:
        return frames, {**place, recording: "train"}
    if pairs < SMALLEST_PART * len(parts):
        raise DatasetError(
            f"A dataset needs at least {SMALLEST_PART * len(parts)} pairs to be split, but has "
            f"{pairs}."
        )
    notes.append(
        f"All pairs to be split are of one recording ({recording}): it was cut into runs of "
        "frames, whose ends are alike. Scores are flattered; more recordings would tell more."
    )
    return _cut(frames, recording, parts, shares, place)


def _pairs(frames: Sequence[Frame]) -> Counter[str]:
    return Counter(frame.recording for frame in frames if frame.kind == "pairs")


def _deal(recordings: Mapping[str, int], shares: Shares, seed: int) -> dict[str, Split]:
    """The best of some shuffled deals, each recording in turn to the part that lacks most."""
    total = sum(recordings.values())
    names = sorted(recordings)
    random = np.random.default_rng(seed)
    best: dict[str, Split] = {}
    least = float("inf")
    for _ in range(SHUFFLES):
        lacks: dict[Split, float] = {
            part: share * total for part, share in shares.items() if share > 0
        }
        place: dict[str, Split] = {}
        number: int
        for dealt, number in enumerate(random.permutation(len(names)).tolist()):
            empty: list[Split] = [part for part in lacks if part not in place.values()]
            # The last ones go where there is nothing yet; train first, then val, then test.
            neediest = max(lacks, key=lambda part: lacks[part])
            part: Split = empty[0] if len(names) - dealt <= len(empty) else neediest
            place[names[number]] = part
            lacks[part] -= recordings[names[number]]
        missed = sum(map(abs, lacks.values()))
        if missed < least:
            best, least = place, missed
    return best


def _cut(
    frames: Sequence[Frame],
    recording: str,
    parts: Sequence[Split],
    shares: Shares,
    place: Mapping[str, Split],
) -> tuple[list[Frame], dict[str, Split]]:
    """One recording as runs of frames in the order of time, each a recording of its own."""
    names = [f.name for f in frames if f.recording == recording and f.kind == "pairs"]
    weight = sum(shares[part] for part in parts)
    counts = [max(SMALLEST_PART, round(len(names) * shares[p] / weight)) for p in parts[1:]]
    while len(names) - sum(counts) < SMALLEST_PART:
        counts[counts.index(max(counts))] -= 1
    starts = [0, *(len(names) - sum(counts[place:]) for place in range(len(counts)))]
    firsts = [names[start] for start in starts]
    runs: dict[Split, str] = {part: f"{recording}/{part}" for part in parts}

    def run(name: str) -> str:
        return runs[parts[max(bisect_right(firsts, name) - 1, 0)]]

    cut = [replace(f, recording=run(f.name)) if f.recording == recording else f for f in frames]
    others: dict[str, Split] = {name: part for name, part in place.items() if name != recording}
    return cut, {**others, **{run: part for part, run in runs.items()}}
