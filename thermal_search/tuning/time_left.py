"""How long a search still takes: from its record, each architecture's own speed, and how often
trials are stopped early. Nothing here reads a clock.
"""

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from thermal_search.training.trial_plan import TrialBudget
from thermal_search.tuning.budgets import EVALUATIONS_PER_TRIAL
from thermal_search.tuning.record import Phase, SearchRecord
from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

Estimate = Callable[[], float | None]
"""Seconds left; None if nothing is known yet."""

Done = Callable[[TrialRecord], float]
"""The fraction of a trial's work (0 .. 1) that is done: of growing networks less than the fraction
of its images."""

SECONDS_BETWEEN_TRIALS = 1.0
"""From the last evaluation of a trial to the first step of the next one on its slot."""

DRAWS = 2_000
"""Trials whose ends are drawn for one estimate: each of few trials often, each of many once."""

MAX_REPETITIONS = 50
PRIOR_STOPS = 3.0
"""Weight of the model against what has been observed, in trials stopped."""


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
        seconds: Counter[str] = Counter()
        work: Counter[str] = Counter()
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


def time_left(
    record: SearchRecord, slots: int, phase: Phase, times: TrialTimes, *, stops: bool = True
) -> float | None:
    """Seconds until the search ends, the retrainings included; None before anything is measured.

    Args:
        stops: whether trials are stopped early.
    """
    seconds = times.by_architecture()
    if not seconds:
        return None
    retraining_time = retraining_seconds(record, slots, seconds)
    if phase == "retrainings":
        begun = record.retrainings.values()
        lengths = [times.left(trial, seconds) for trial in begun if trial.status in UNFINISHED]
        missing = record.plan.finalists * record.plan.seeds - len(begun)
        lengths += [_mean(_finalist_seconds(record, seconds))] * max(missing, 0)
        return makespan(lengths, slots)
    stops_model = Ladders.of(record, stops=stops and not record.objective.has_two_objectives)
    running = [trial for trial in record.trials.values() if trial.status in UNFINISHED]
    waiting = max(record.plan.trials - len(record.trials), 0)
    names, weights = _mix(record, seconds)
    repetitions = max(1, min(MAX_REPETITIONS, DRAWS // max(waiting + len(running), 1)))
    totals: list[float] = []
    for repetition in range(repetitions):
        draw = random.Random(repetition)
        counts = stops_model.counts()
        lengths = [
            times.left(trial, seconds)
            * _left_of(trial.share, stops_model.end(trial.architecture, counts, draw, trial.share))
            for trial in running
        ]
        untried = [n for n in record.plan.architectures if n not in _tried(record)][:waiting]
        for name in untried + draw.choices(names, weights, k=waiting - len(untried)):
            lengths.append(seconds[name] * stops_model.end(name, counts, draw))
        totals.append(makespan(lengths, slots))
    return fmean(totals) + retraining_time


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


@dataclass(frozen=True)
class Ladders:
    """When trials are expected to stop, by architecture.

    With asha, a trial is stopped at a rung if it is behind the best 1/reduction of those before it.
    Of trials in random order the probability follows from their number; what was observed corrects
    it, for later trials are better than earlier ones, and the other schedulers stop at other
    evaluations.
    """

    shares: Mapping[str, Sequence[float]]
    """Of the rungs, as fractions of the budget."""

    reached: Mapping[str, Sequence[int]]
    """How many trials have reached each rung."""

    reduction: float
    correction: float
    """Stops observed for each one expected."""

    default: Sequence[float] = ()
    """The rungs of an architecture without a trial."""

    @classmethod
    def of(cls, record: SearchRecord, *, stops: bool) -> "Ladders":
        plan = record.plan
        if not stops or plan.scheduler == "none":
            return cls({}, {}, plan.reduction, 0.0)
        shares: dict[str, Sequence[float]] = {}
        # Until there is a trial: of networks that do not grow.
        reached: dict[str, list[int]] = {}
        budget = TrialBudget(
            images=plan.images or EVALUATIONS_PER_TRIAL, evaluate_every=plan.evaluate_every
        )
        default = Rungs.of(budget, plan.reduction).shares
        expected = observed = 0.0
        for trial in record.trials.values():
            name = trial.architecture
            if name not in shares:
                shares[name] = Rungs.of(trial.budget, plan.reduction).shares
                reached[name] = [0] * len(shares[name])
            for rung, share in enumerate(shares[name]):
                if trial.share >= share:
                    expected += _stop_probability(reached[name][rung], plan.reduction)
                    reached[name][rung] += 1
            observed += trial.status == "stopped"
        correction = (observed + PRIOR_STOPS) / (expected + PRIOR_STOPS)
        return cls(shares, reached, plan.reduction, correction, default)

    def counts(self) -> dict[str, list[int]]:
        return {name: list(reached) for name, reached in self.reached.items()}

    def end(
        self, name: str, counts: dict[str, list[int]], draw: random.Random, start: float = 0.0
    ) -> float:
        """The share of its budget at which a trial that has come to `start` ends, drawn."""
        shares = self.shares.get(name, self.default)
        reached = counts.setdefault(name, [0] * len(shares))
        for rung, share in enumerate(shares):
            if share <= start:
                continue
            probability = self.correction * _stop_probability(reached[rung], self.reduction)
            reached[rung] += 1
            if draw.random() < probability:
                return share
        return 1.0


def _stop_probability(before: int, reduction: float) -> float:
    """That a trial is behind the best 1/reduction of the `before` trials at a rung, if all are in
    random order: the expected rank of ASHA's cutoff, a linearly interpolated percentile."""
    if not before:
        return 0.0
    return ((1 - 1 / reduction) * (before - 1) + 1) / (before + 1)


def _left_of(share: float, end: float) -> float:
    """The fraction of a trial's rest that it trains if it ends at `end`."""
    return max(end - share, 0.0) / (1 - share) if share < 1 else 0.0


def _mix(record: SearchRecord, seconds: Mapping[str, float]) -> tuple[list[str], list[float]]:
    """Architectures of coming trials: as the sampler has proposed them until now, and each once
    more."""
    names = [name for name in record.plan.architectures if name in seconds]
    counts = Counter(trial.architecture for trial in record.trials.values())
    return names, [max(counts[name] - 1, 0) + 1.0 for name in names]


def _tried(record: SearchRecord) -> set[str]:
    return {trial.architecture for trial in record.trials.values()}


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
