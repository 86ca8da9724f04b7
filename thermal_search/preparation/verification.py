"""Which pairs are believed: a pure function of how well the edges of each recording's pairs agree.

Official pairs are trusted, and those of equal names are taken at their word; both are scored, so
that a reader sees what they are worth. Recovered pairs must show it: of each recording the run of
frames is kept in which the edges agree, and in it the frames that agree themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from thermal_search.preparation.layouts.frame import Pairing

AGREES = 0.15
"""On RoadScene 99 % of true pairs score more, and 2 % of wrong ones (benchmarks/agreement.py)."""

LARGEST_VOTE = 0.1
"""What one frame can say for or against its run: a good one does not bridge a bad stretch."""

EVIDENCE = 0.1
"""What a run's votes must sum to: two or three clear frames, or many weak ones."""


@dataclass(frozen=True)
class Scored:
    recording: str
    name: str
    """Sorts by time within a recording."""

    pairing: Pairing
    score: float
    """`edge_agreement` of the two images."""


@dataclass(frozen=True)
class Dropped:
    pair: Scored
    reason: str


def doubtful(pairs: Sequence[Scored]) -> list[Dropped]:
    """The recovered pairs that do not show one scene, each with its reason."""
    dropped: list[Dropped] = []
    for members in _recordings([pair for pair in pairs if pair.pairing == "recovered"]):
        votes = [np.clip(pair.score - AGREES, -LARGEST_VOTE, LARGEST_VOTE) for pair in members]
        start, end = _best_run(votes)
        if sum(votes[start:end]) < EVIDENCE:
            start, end = 0, 0
        for place, pair in enumerate(members):
            if start == end:
                reason = "another scene: in no part of its recording do the edges agree"
            elif place < start:
                reason = "not in step: the edges agree only later in its recording"
            elif place >= end:
                reason = "drifted: the edges agreed only earlier in its recording"
            elif pair.score < AGREES:
                reason = "doubtful: its edges do not agree"
            else:
                continue
            dropped.append(Dropped(pair, reason))
    return dropped


def quantiles(pairs: Sequence[Scored]) -> Mapping[str, Mapping[str, object]]:
    """By recording: who says that its pairs are pairs, and how well their edges agree."""
    told: dict[str, Mapping[str, object]] = {}
    for members in _recordings(pairs):
        scores = np.quantile([pair.score for pair in members], [0.05, 0.5, 0.95]).round(3).tolist()
        told[members[0].recording] = {
            "pairing": members[0].pairing,
            "agreement": dict(zip(("5%", "50%", "95%"), scores, strict=True)),
        }
    return told


def suspects(pairs: Sequence[Scored]) -> list[str]:
    """Recordings whose pairs are kept but agree no better than wrong ones in half of the frames."""
    return [
        members[0].recording
        for members in _recordings(pairs)
        if np.median([pair.score for pair in members]) < AGREES
    ]


def _recordings(pairs: Sequence[Scored]) -> list[list[Scored]]:
    ordered = sorted(pairs, key=lambda pair: (pair.recording, pair.name))
    return [list(group) for _, group in groupby(ordered, key=lambda pair: pair.recording)]


def _best_run(votes: Sequence[float]) -> tuple[int, int]:
    """The stretch [start, end) of the largest sum, empty where no vote is positive (Kadane)."""
    best, best_run = 0.0, (0, 0)
    total, start = 0.0, 0
    for place, vote in enumerate(votes):
        if total <= 0:
            total, start = 0.0, place
        total += vote
        if total > best:
            best, best_run = total, (start, place + 1)
    return best_run
