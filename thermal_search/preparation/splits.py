"""Train, validation and test splits by whole recordings: neighboring frames are nearly the same."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from thermal_search.data.manifest import Split
from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts.contents import SourceFrame

Moment = tuple[int, tuple[str | int, ...]]
Fractions = Mapping[Split, float]
"""Fraction of the pairs by split."""

MIN_SPLIT_PAIRS = 2
CUT_GAP_SHARE, MAX_CUT_GAP = 20, 50
"""Pairs that are left out where a recording is cut: one in so many, and at most so many."""

SHUFFLES = 64
"""Shuffled orders that are tried; the assignment nearest to the wanted fractions is taken."""


def subsample(frames: Sequence[SourceFrame], every_nth: int) -> list[SourceFrame]:
    """Keeps the first and then every n-th frame of each recording, each kind by itself."""
    ordered = sorted(frames, key=lambda frame: (frame.kind, frame.recording, frame.moment))
    return [
        frame
        for _, members in groupby(ordered, key=lambda frame: (frame.kind, frame.recording))
        for frame in list(members)[::every_nth]
    ]


def assign_splits(
    frames: Sequence[SourceFrame], fractions: Fractions, seed: int = 0
) -> tuple[list[SourceFrame], list[str]]:
    """Every frame with its split, and notes for the reader of the dataset.

    Recordings keep the split that their authors gave them. The others are assigned whole, so that
    the splits come near to `fractions` of the pairs. A split that the authors did not make is taken
    from their train recordings; what they held out is never trained on. Frames without a partner
    follow their recording. If a recording must be cut, frames at the cut are left out. A pure
    function of its arguments, whatever the order of the frames.
    """
    frames = sorted(frames, key=lambda frame: (frame.kind, frame.recording, frame.moment))
    notes: list[str] = []
    assigned = _official(frames)
    free = {name: n for name, n in _pair_counts(frames).items() if name not in assigned}
    if len(free) == 1 and len(free) < len(_pair_counts(frames)):
        # A single recording in addition to those that the authors split is one more to train on.
        assigned |= dict.fromkeys(free, "train")
    elif free:
        frames, assigned = _assign(frames, free, fractions, seed, assigned, notes)
    if missing := _missing(frames, assigned, fractions):
        names = " and ".join(missing)
        notes.append(
            f"There is no {names} split with pairs: it was taken from the train recordings."
        )
        train = {name: n for name, n in _pair_counts(frames).items() if assigned[name] == "train"}
        wanted: Fractions = {
            "train": fractions["train"],
            **{split: fractions[split] for split in missing},
        }
        frames, assigned = _assign(frames, train, wanted, seed, assigned, notes)
    return [replace(f, split=assigned.get(f.recording, "train")) for f in frames], notes


def _official(frames: Sequence[SourceFrame]) -> dict[str, Split]:
    """The authors' split of each recording; held out overrides train, if it is in both."""
    assigned: dict[str, Split] = {}
    splits: list[Split] = ["train", "val", "test"]
    for split in splits:
        assigned |= {frame.recording: split for frame in frames if frame.split == split}
    return assigned


def _missing(
    frames: Sequence[SourceFrame], assigned: Mapping[str, Split], fractions: Fractions
) -> list[Split]:
    """The wanted splits without pairs, if the authors' train split has pairs to give away."""
    present = {assigned[recording] for recording in _pair_counts(frames)}
    splits: list[Split] = ["val", "test"]
    missing: list[Split] = [s for s in splits if s not in present and fractions[s] > 0]
    is_official = any(frame.split and frame.kind == "pairs" for frame in frames)
    return missing if is_official and "train" in present else []


def _assign(
    frames: list[SourceFrame],
    recordings: Mapping[str, int],
    fractions: Fractions,
    seed: int,
    assigned: Mapping[str, Split],
    notes: list[str],
) -> tuple[list[SourceFrame], dict[str, Split]]:
    """Assigns these recordings, each with its number of pairs; a single one is cut by time."""
    if len(recordings) > 1:
        drawn = _draw(recordings, fractions, seed)
        if empty := [s for s in fractions if fractions[s] > 0 and s not in drawn.values()]:
            notes.append(f"Only two recordings have pairs: there is no {empty[0]} split.")
        return frames, {**assigned, **drawn}
    ((recording, pairs),) = recordings.items()
    splits: list[Split] = [split for split in fractions if fractions[split] > 0]
    if pairs < MIN_SPLIT_PAIRS * len(splits) and splits[-1] == "test":
        splits.pop()
        notes.append(f"There are too few pairs ({pairs} of one recording) for a test split.")
    if splits == ["train"]:
        return frames, {**assigned, recording: "train"}
    if pairs < MIN_SPLIT_PAIRS * len(splits):
        raise DatasetError(
            f"A dataset needs at least {MIN_SPLIT_PAIRS * len(splits)} pairs to be split, but has "
            f"{pairs}."
        )
    gap = min(MAX_CUT_GAP, pairs // CUT_GAP_SHARE)
    notes.append(
        f"All pairs to be split are of one recording ({recording}): it was cut into runs of "
        f"frames, and {gap} pairs were left out at each cut. Scores are too good; use more "
        "recordings."
    )
    return _cut(frames, recording, splits, fractions, assigned, gap)


def _pair_counts(frames: Sequence[SourceFrame]) -> Counter[str]:
    return Counter(frame.recording for frame in frames if frame.kind == "pairs")


def _draw(recordings: Mapping[str, int], fractions: Fractions, seed: int) -> dict[str, Split]:
    """The best of some random orders, each recording in turn to the split that lacks most pairs."""
    total = sum(recordings.values())
    names = sorted(recordings)
    random = np.random.default_rng(seed)
    best: dict[str, Split] = {}
    least_error = float("inf")
    for _ in range(SHUFFLES):
        lacking: dict[Split, float] = {
            split: fraction * total for split, fraction in fractions.items() if fraction > 0
        }
        drawn: dict[str, Split] = {}
        number: int
        for done, number in enumerate(random.permutation(len(names)).tolist()):
            empty: list[Split] = [split for split in lacking if split not in drawn.values()]
            # The last recordings fill splits that are still empty: train, then val, then test.
            neediest = max(lacking, key=lambda split: lacking[split])
            split: Split = empty[0] if len(names) - done <= len(empty) else neediest
            drawn[names[number]] = split
            lacking[split] -= recordings[names[number]]
        error = sum(map(abs, lacking.values()))
        if error < least_error:
            best, least_error = drawn, error
    return best


def _cut(
    frames: Sequence[SourceFrame],
    recording: str,
    splits: Sequence[Split],
    fractions: Fractions,
    assigned: Mapping[str, Split],
    gap: int,
) -> tuple[list[SourceFrame], dict[str, Split]]:
    """One recording as runs of frames in the order of time, each a recording of its own.

    The last `gap` pairs of each run but the last are left out, so that no frame of one split is
    next to one of another.
    """
    moments = [f.moment for f in frames if f.recording == recording and f.kind == "pairs"]
    total = sum(fractions[split] for split in splits)
    counts = [max(MIN_SPLIT_PAIRS, round(len(moments) * fractions[s] / total)) for s in splits[1:]]
    while len(moments) - sum(counts) < MIN_SPLIT_PAIRS:
        counts[counts.index(max(counts))] -= 1
    starts = [0, *(len(moments) - sum(counts[index:]) for index in range(len(counts)))]
    edges = [moments[start] for start in starts]
    # The first moment that a run leaves out.
    ends: list[Moment | None] = [
        moments[max(next_start - gap, start + MIN_SPLIT_PAIRS)] if gap else None
        for start, next_start in pairwise(starts)
    ]
    runs: dict[Split, str] = {split: f"{recording}/{split}" for split in splits}
    cut: list[SourceFrame] = []
    for frame in frames:
        if frame.recording != recording:
            cut.append(frame)
            continue
        number = max(bisect_right(edges, frame.moment) - 1, 0)
        end = ends[number] if number < len(ends) else None
        if end is None or frame.moment < end:
            cut.append(replace(frame, recording=runs[splits[number]]))
    others: dict[str, Split] = {n: split for n, split in assigned.items() if n != recording}
    return cut, {**others, **{run: split for split, run in runs.items()}}
