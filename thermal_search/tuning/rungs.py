"""The rungs at which early stopping compares trials: shares of each trial's own budget."""

import math
from dataclasses import dataclass

from thermal_search.training.trial_plan import TrialBudget


@dataclass(frozen=True)
class Rungs:
    """The rungs of one architecture's trials, counted in evaluations of their own budgets."""

    first: float
    """The first rung: of growing networks, the first evaluation at their full size."""

    last: float
    """The end of the budget, where no trial is stopped any more."""

    reduction: float
    """Each rung is this many times as far as the one before, and keeps 1/reduction."""

    @classmethod
    def of(cls, budget: TrialBudget, reduction: float) -> "Rungs":
        """Those of the architecture whose first trial has this budget."""
        last = budget.images / budget.evaluate_every
        full_size = math.ceil(budget.full_size_from / budget.evaluate_every)
        return cls(min(max(full_size, 1.0), last), last, reduction)

    @property
    def shares(self) -> list[float]:
        """The shares of a budget (0 .. 1) at which a trial may be stopped, increasing."""
        shares: list[float] = []
        rung = self.first
        while rung < self.last:
            shares.append(rung / self.last)
            rung *= self.reduction
        return shares


def position(budget: TrialBudget, images: int) -> float:
    """How far a trial has come, in evaluations: in the unit of `Rungs`."""
    return images / budget.evaluate_every


def is_comparable(budget: TrialBudget, images: int) -> bool:
    """Whether a trial's networks have their full size: before, it stops nowhere."""
    return images >= budget.full_size_from
