"""How long a search still takes: from its record, by each architecture's own speed. Nothing here
reads a clock.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import fmean

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.record_files import Phase
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

Estimate = Callable[[], float | None]
"""Seconds left; None if nothing is known yet."""

Done = Callable[[TrialRecord], float]
"""The fraction of a trial's work (0 .. 1) that is done: of growing networks less than the fraction
of its images."""

SECONDS_BETWEEN_TRIALS = 1.0
"""From the last evaluation of a trial to the first step of the next one on its slot."""


def share_of(trial: TrialRecord) -> float:
    """`Done` of networks that do not grow."""
    return trial.share


@dataclass(frozen=True)
class TrialTimes:
    """Seconds that trials take from their start to the end of their budget, evaluations included:
    as measured of the same architecture, else what was known before, else as the others."""

    record: SearchRecord
    done: Done = share_of
    before: Mapping[str, float] = field(default_factory=dict[str, float])
    """Seconds by architecture, of a calibration."""

    def by_architecture(self) -> dict[str, float]:
        seconds: defaultdict[str, float] = defaultdict(float)
        work: defaultdict[str, float] = defaultdict(float)
        for trial in _every(self.record):
            if trial.images:
                seconds[trial.architecture] += trial.seconds
                work[trial.architecture] += self.done(trial)
        measured = {name: seconds[name] / work[name] for name in seconds}
        others = fmean(measured.values()) if measured else None
        known = {**self.before, **measured}
        if others is None:
            return known
        return {name: others for name in self.record.plan.architectures} | known

    def left(self, trial: TrialRecord, by_architecture: Mapping[str, float]) -> float:
        """Seconds from a trial's last evaluation to the end of its budget."""
        done = self.done(trial)
        if trial.images:
            return trial.seconds * (1 / done - 1)
        return by_architecture[trial.architecture]


def time_left(record: SearchRecord, slots: int, phase: Phase, times: TrialTimes) -> float | None:
    """Seconds until the search ends, the retrainings included, if no further trial is stopped
    early; None before anything is measured."""
    seconds = times.by_architecture()
    if not seconds:
        return None
    if phase == "retrainings":
        begun = record.retrainings.values()
        lengths = [times.left(trial, seconds) for trial in begun if trial.status in UNFINISHED]
        missing = record.plan.finalists * record.plan.seeds - len(begun)
        lengths += [_mean(_finalist_seconds(record, seconds))] * max(missing, 0)
        return makespan(lengths, slots)
    trials = record.trials.values()
    lengths = [times.left(trial, seconds) for trial in trials if trial.status in UNFINISHED]
    waiting = max(record.plan.trials - len(trials), 0)
    tried = {trial.architecture for trial in trials}
    untried = [name for name in record.plan.architectures if name not in tried][:waiting]
    lengths += [seconds[name] for name in untried]
    lengths += [_coming_seconds(record, seconds)] * (waiting - len(untried))
    return makespan(lengths, slots) + retraining_seconds(record, slots, seconds)


def retraining_seconds(
    record: SearchRecord, slots: int, by_architecture: Mapping[str, float]
) -> float:
    """Seconds of the finalists' retrainings, each once with every further seed."""
    lengths = _finalist_seconds(record, by_architecture)
    return makespan(lengths * record.plan.seeds, slots)


def makespan(lengths: Iterable[float], slots: int) -> float:
    """Seconds until trials of these lengths have ended, each on the first slot that is free."""
    ends = [0.0] * slots
    for length in lengths:
        heapq.heapreplace(ends, ends[0] + length + SECONDS_BETWEEN_TRIALS)
    return max(ends)


def _coming_seconds(record: SearchRecord, seconds: Mapping[str, float]) -> float:
    """The mean over architectures as the sampler has proposed them until now, and each once."""
    names = [name for name in record.plan.architectures if name in seconds]
    counts = Counter(trial.architecture for trial in record.trials.values())
    weights = {name: max(counts[name], 1) for name in names}
    return sum(weights[name] * seconds[name] for name in names) / sum(weights.values())


def _finalist_seconds(record: SearchRecord, by_architecture: Mapping[str, float]) -> list[float]:
    """Seconds of one retraining of each finalist: of those that are best now, else as the mean."""
    count = record.plan.finalists
    best = [by_architecture[trial.architecture] for trial in record.ranking()[:count]]
    return best + [_mean(by_architecture.values())] * (count - len(best))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return fmean(values) if values else 0.0


def _every(record: SearchRecord) -> list[TrialRecord]:
    return [*record.trials.values(), *record.retrainings.values()]
