"""The median stopping rule (Golovin et al. 2017, Google Vizier) within each architecture.

A trial stops if its best value so far is worse than the median of the means of the other trials, up
to as many images as it has seen.
"""

import math
from typing import Any

import numpy as np
from ray.tune.schedulers import MedianStoppingRule

from thermal_search.tuning.scheduler import Comparison, PerArchitectureScheduler, StoppingRule
from thermal_search.tuning.space import OBJECTIVE

IMAGES = "images"


class PerArchitectureMedian(PerArchitectureScheduler):
    """One median stopping rule per architecture."""

    def create_rule(self) -> StoppingRule:
        plan = self.record.plan
        return MedianRule(grace_period=min(plan.evaluate_every, plan.images))


class MedianRule(MedianStoppingRule):
    """Ray Tune's rule, which never pauses a trial."""

    def __init__(self, grace_period: float) -> None:
        super().__init__(
            time_attr=IMAGES,
            metric=OBJECTIVE,
            mode="min",
            grace_period=grace_period,
            min_time_slice=math.inf,  # pyright: ignore[reportArgumentType] - a slot cannot pause
        )
        self.last_comparison: Comparison | None = None

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == self.STOP:
            images = result[IMAGES]
            others = [other for other in self._trials_beyond_time(images) if other != trial]
            means = [float(self._running_mean(other, images)) for other in others]
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
        if not seen or seen[-1][IMAGES] < result[IMAGES]:  # else it would count twice
            super().on_trial_complete(tune_controller, trial, result)
