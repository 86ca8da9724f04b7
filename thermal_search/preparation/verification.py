"""Which recovered pairs are kept: a pure function of the edge agreement of each recording's pairs.

Official pairs are trusted, and pairs of equal names are assumed to be right; both are scored, so
that a reader can check them. Recovered pairs must prove themselves: of each recording the run of
frames is kept in which the edges agree, and within it the frames whose own edges agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import numpy as np

from thermal_search.data.manifest import Pairing, RejectedPair
from thermal_search.preparation.layouts.recordings import natural_key

MIN_AGREEMENT = 0.15
"""On RoadScene 99 % of true pairs score more, and 2 % of wrong ones (benchmarks/agreement.py)."""

MAX_VOTE = 0.1
"""Most that one frame can count for or against its run, so that a good frame does not bridge a bad
stretch."""

MIN_EVIDENCE = 0.1
"""Least sum of a run's votes: two or three clear frames, or many weak ones."""

Quantile = Literal["5%", "50%", "95%"]


@dataclass(frozen=True)
class ScoredPair:
    recording: str
    name: str
    """Sorts by time within a recording."""

    pairing: Pairing
    score: float
    """`edge_agreement` of the two images."""

    thumbnail: str = ""
    """To find near-duplicates by."""


@dataclass(frozen=True)
class AgreementSummary:
    """The pairs of one recording."""

    pairing: Pairing
    quantiles: Mapping[Quantile, float]
    """Quantiles of the scores."""


def rejected_pairs(pairs: Sequence[ScoredPair]) -> list[RejectedPair]:
    """The recovered pairs that do not show the same scene, each with the reason."""
    rejected: list[RejectedPair] = []
    for members in _by_recording([pair for pair in pairs if pair.pairing == "recovered"]):
        votes = [np.clip(pair.score - MIN_AGREEMENT, -MAX_VOTE, MAX_VOTE) for pair in members]
        start, end = _best_run(votes)
        if sum(votes[start:end]) < MIN_EVIDENCE:
            start, end = 0, 0
        for position, pair in enumerate(members):
            if start == end:
                reason = "another scene: the edges agree nowhere in its recording"
            elif position < start:
                reason = "out of step: the edges agree only later in its recording"
            elif position >= end:
                reason = "drifted: the edges agreed only earlier in its recording"
            elif pair.score < MIN_AGREEMENT:
                reason = "doubtful: its edges do not agree"
            else:
                continue
            rejected.append(
                RejectedPair(
                    recording=pair.recording,
                    name=pair.name,
                    pairing=pair.pairing,
                    score=pair.score,
                    reason=reason,
                )
            )
    return rejected


def summarize_agreement(pairs: Sequence[ScoredPair]) -> Mapping[str, AgreementSummary]:
    """By recording: who paired its images, and how well their edges agree."""
    summaries: dict[str, AgreementSummary] = {}
    for members in _by_recording(pairs):
        low, median, high = (
            np.quantile([pair.score for pair in members], [0.05, 0.5, 0.95]).round(3).tolist()
        )
        summaries[members[0].recording] = AgreementSummary(
            members[0].pairing, {"5%": low, "50%": median, "95%": high}
        )
    return summaries


def suspect_recordings(pairs: Sequence[ScoredPair]) -> list[str]:
    """Recordings of which half of the pairs agree no better than wrong ones."""
    return [
        members[0].recording
        for members in _by_recording(pairs)
        if np.median([pair.score for pair in members]) < MIN_AGREEMENT
    ]


def _by_recording(pairs: Sequence[ScoredPair]) -> list[list[ScoredPair]]:
    ordered = sorted(pairs, key=lambda pair: (pair.recording, natural_key(pair.name)))
    return [list(group) for _, group in groupby(ordered, key=lambda pair: pair.recording)]


def _best_run(votes: Sequence[float]) -> tuple[int, int]:
    """The stretch [start, end) of the largest sum, empty if no vote is positive (Kadane)."""
    best, best_run = 0.0, (0, 0)
    total, start = 0.0, 0
    for position, vote in enumerate(votes):
        if total <= 0:
            total, start = 0.0, position
        total += vote
        if total > best:
            best, best_run = total, (start, position + 1)
    return best_run
