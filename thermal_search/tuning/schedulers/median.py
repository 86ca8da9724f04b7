"""The median stopping rule (Golovin et al. 2017, Google Vizier) within each architecture.

A trial stops if its best value so far is worse than the median of the means of the other trials, up
to the same share of their budgets.
"""

import math
from typing import Any

import numpy as np
from ray.tune.schedulers import MedianStoppingRule

from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.schedulers.per_architecture import (
    POSITION,
    Comparison,
    PerArchitectureScheduler,
    StoppingRule,
)
from thermal_search.tuning.space import OBJECTIVE


class PerArchitectureMedian(PerArchitectureScheduler):
    """One median stopping rule per architecture."""

    def create_rule(self, rungs: Rungs) -> StoppingRule:
        return MedianRule(grace_period=rungs.first)


class MedianRule(MedianStoppingRule):
    """Ray Tune's rule, which never pauses a trial."""

    def __init__(self, grace_period: float) -> None:
        super().__init__(
            time_attr=POSITION,
            metric=OBJECTIVE,
            mode="min",
            grace_period=grace_period,
            min_time_slice=math.inf,  # pyright: ignore[reportArgumentType] - a slot cannot pause
        )
        self.last_comparison: Comparison | None = None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == self.STOP:
            at = result[POSITION]
            others = [other for other in self._trials_beyond_time(at) if other != trial]
            means = [float(self._running_mean(other, at)) for other in others]
            means = [mean for mean in means if math.isfinite(mean)]
            self.last_comparison = Comparison(
                value=self._best_result(trial),
                threshold=float(np.median(means)),
                value_name="best {objective}",
                threshold_name="the median of the means of",
                trials=len(means),
            )
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        seen = self._results[trial]
        if not seen or seen[-1][POSITION] < result[POSITION]:  # else it would count twice
            super().on_trial_complete(tune_controller, trial, result)
