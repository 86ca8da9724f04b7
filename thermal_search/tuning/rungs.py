"""The rungs at which early stopping compares trials: shares of each trial's own budget."""

import math
from dataclasses import dataclass

from thermal_search.training.trial_plan import TrialBudget


@dataclass(frozen=True)
class Rungs:
    """The rungs of one architecture's trials, counted in evaluations of their own budgets."""

    first: float
    """The first rung, within the architecture: of growing networks, the first evaluation at their
    full size."""

    last: float
    """The end of the budget, where no trial is stopped any more."""

    reduction: float
    """Each rung is this many times as far as the one before, and keeps 1/reduction."""

    @property
    def common(self) -> list[float]:
        """The further rungs, increasing: the same for all architectures, after the first
        evaluation of networks that do not grow."""
        rungs: list[float] = []
        rung = self.reduction
        while rung < self.last:
            if rung > self.first:
                rungs.append(rung)
            rung *= self.reduction
        return rungs

    @classmethod
    def of(cls, budget: TrialBudget, reduction: float) -> "Rungs":
        """Those of the architecture whose first trial has this budget."""
        last = budget.images / budget.evaluate_every
        full_size = math.ceil(budget.full_size_from / budget.evaluate_every)
        return cls(min(max(full_size, 1.0), last), last, reduction)

    @property
    def shares(self) -> list[float]:
        """The shares of a budget (0 .. 1) at which a trial may be stopped, increasing."""
        return [rung / self.last for rung in (self.first, *self.common) if rung < self.last]


def position(budget: TrialBudget, images: int) -> float:
    """How far a trial has come, in evaluations: in the unit of `Rungs`."""
    return images / budget.evaluate_every


def is_comparable(budget: TrialBudget, images: int) -> bool:
    """Whether a trial's networks have their full size: before, it stops nowhere."""
    return images >= budget.full_size_from
