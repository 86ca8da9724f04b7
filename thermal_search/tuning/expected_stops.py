"""How much of a full trial the trials of a search train on average, if its scheduler stops as many
as it would stop of trials that come in random order.

asha and hyperband compare a trial with the n that came to a rung before it: it continues if it is
not behind the percentile 100/reduction of them. Of n + 1 trials in random order each is equally
likely to be at any rank, so that the last one continues with probability
((n - 1) / reduction + 1) / (n + 1), and the first one always: 1/2 of the second ones, 1/reduction
in a long search. (Between two ranks, where Ray Tune interpolates, this takes equal spacing.)

In a search more may continue. A sampler that learns proposes better trials over time. And the
order at a rung is not all new: those that come late to the further rungs had more to beat before.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping

from thermal_search.training.trial_plan import TrialBudget
from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.schedulers.hyperband import bracket_rungs, bracket_weights
from thermal_search.tuning.settings import Scheduler

Done = Callable[[str, float], float]
"""The fraction of a full trial's work that is done, by architecture and fraction of its images."""


def expected_shares(
    scheduler: Scheduler,
    budgets: Mapping[str, TrialBudget],
    trials: float,
    reduction: float,
    done: Done,
) -> dict[str, float] | None:
    """The mean fraction of a full trial's work that a trial trains, by architecture.

    None if nothing can be said: what `median` stops depends on the learning curves.

    Args:
        budgets: of a trial of each architecture.
        trials: of the whole search: as many of each architecture.
        reduction: what --reduction says.
    """
    if scheduler == "median":
        return None
    rungs = {name: Rungs.of(budget, reduction) for name, budget in budgets.items()}
    each = trials / len(rungs)
    if scheduler == "asha":
        return _asha(rungs, each, done)
    if scheduler == "hyperband":
        return {name: _hyperband(name, own, each, done) for name, own in rungs.items()}
    return dict.fromkeys(rungs, 1.0)


def going_on(arrivals: float, reduction: float) -> float:
    """How many of the trials that come to a rung continue, on average."""
    whole = range(math.ceil(arrivals))
    return sum(min(arrivals - before, 1.0) * _chance(before, reduction) for before in whole)


def _chance(before: int, reduction: float) -> float:
    """That a trial continues from a rung to which so many came before it."""
    return ((before - 1) / reduction + 1) / (before + 1) if before else 1.0


def _asha(rungs: Mapping[str, Rungs], each: float, done: Done) -> dict[str, float]:
    """First each architecture's own rung, then those of all."""
    left = dict.fromkeys(rungs, each)
    work = dict.fromkeys(rungs, 0.0)
    last_done = dict.fromkeys(rungs, 0.0)

    def train_to(name: str, share: float) -> None:
        now = done(name, share)
        work[name] += left[name] * (now - last_done[name])
        last_done[name] = now

    for name, own in rungs.items():
        if own.first < own.last:
            train_to(name, _at(own.first, own))
            left[name] = going_on(each, own.reduction)
    common: defaultdict[float, list[str]] = defaultdict(list)
    for name, own in rungs.items():
        for rung in _compared(own.common, own):
            common[rung].append(name)
    for rung in sorted(common):
        names = common[rung]
        arrivals = sum(left[name] for name in names)
        for name in names:
            train_to(name, _at(rung, rungs[name]))
            left[name] *= going_on(arrivals, rungs[name].reduction) / arrivals
    for name in rungs:
        train_to(name, 1.0)
    return {name: work[name] / each for name in rungs}


def _hyperband(name: str, rungs: Rungs, each: float, done: Done) -> float:
    """The mean over an architecture's brackets, each with its share of the trials."""
    weights = bracket_weights(rungs)
    work = 0.0
    for bracket, weight in enumerate(weights):
        left, before = each * weight / sum(weights), 0.0
        for rung in _compared(bracket_rungs(rungs, bracket), rungs):
            now = done(name, _at(rung, rungs))
            work += left * (now - before)
            left, before = going_on(left, rungs.reduction), now
        work += left * (1.0 - before)
    return work / each


def _compared(positions: list[float], rungs: Rungs) -> list[float]:
    """Of the rungs that a trial comes to at the same evaluation the last, at which alone it is
    compared; none at the end of its budget."""
    last = {math.ceil(rung): rung for rung in sorted(positions)}
    return [rung for evaluation, rung in last.items() if evaluation < rungs.last]


def _at(rung: float, rungs: Rungs) -> float:
    """The share of its images that a trial has shown when it is compared at a rung."""
    return math.ceil(rung) / rungs.last
