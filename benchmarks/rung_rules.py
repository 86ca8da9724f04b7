"""Stopping rules that are not the product's, for search_policies.py: asynchronous successive
halving (ASHA) with other rungs, such as those that the product had before.

The recorded runs of most architectures take about equal compute, and those of the most expensive
ones up to four times as much: equal shares of a budget are equal compute only nearly.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from ray.tune.schedulers import FIFOScheduler

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import REPORT

Scope = Literal["architecture", "all"]


class RungRule(FIFOScheduler):
    """ASHA with a scope for each rung: the trials that a trial is compared with."""

    def __init__(
        self,
        record: SearchRecord,
        rungs: Sequence[tuple[int, Scope]],
        *,
        waits_for_growth: bool = False,
    ) -> None:
        """
        Args:
            rungs: evaluations before each rung, and its scope; ascending.
            waits_for_growth: whether rungs before a growing network has its full size are left out.
        """
        super().__init__()
        self.record, self.rungs = record, rungs
        self.waits_for_growth = waits_for_growth
        self.values: dict[tuple[int, str], list[float]] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["status"] != "running":
            return self.CONTINUE
        count = result["images"]  # of evaluations
        for rung, scope in self.rungs:
            if count != rung or count < self._first_comparable(trial.config):
                continue
            name = trial.config["architecture"] if scope == "architecture" else ""
            others = self.values.setdefault((rung, name), [])
            value, *_ = self.record.objective_with(trial.trial_id, result[REPORT].evaluation)
            share = 100 / self.record.plan.reduction
            is_behind = bool(others) and value > np.percentile(others, share)
            others.append(value)
            if is_behind:
                return self.STOP
        return self.CONTINUE

    def _first_comparable(self, config: dict[str, Any]) -> float:
        """Evaluations until a trial shows itself at full size."""
        if not self.waits_for_growth:
            return 0
        parameters = config["parameters"]
        grows = "growth_fraction" in parameters
        return parameters["growth_fraction"] * self.record.plan.images if grows else 0
