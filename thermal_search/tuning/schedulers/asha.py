"""Asynchronous successive halving (ASHA, Li et al. 2020, https://arxiv.org/abs/1810.05934):
--scheduler asha.

At its first rung a trial is compared within its architecture: architectures learn at different
speeds, and the fastest starter is not the best. At the further rungs it is compared with the trials
of all architectures, because trials have equal compute and the search keeps one of them. Ray Tune's
ASHA has one set of rungs for all trials of a scheduler, so the rungs are our own.
"""

from typing import Any

import numpy as np
from ray.tune.schedulers import TrialScheduler

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.rungs import Rungs, position
from thermal_search.tuning.schedulers.per_architecture import (
    POSITION,
    Comparison,
    PerArchitectureScheduler,
    StoppingRule,
    best_share,
)
from thermal_search.tuning.space import OBJECTIVE


class ASHA(PerArchitectureScheduler):
    """A rule per architecture, which share the rungs at which all trials are compared."""

    def __init__(self, record: SearchRecord) -> None:
        self.common: dict[float, dict[str, float]] = {}
        """By position: the objective of each trial that came there, by id."""

        super().__init__(record)

    def create_rule(self, rungs: Rungs) -> StoppingRule:
        return ASHARule(self.record, rungs, self.common)


class ASHARule:
    """The first rung of an architecture, and those of all trials."""

    def __init__(
        self, record: SearchRecord, rungs: Rungs, common: dict[float, dict[str, float]]
    ) -> None:
        """`common`: of all architectures; the rule adds its trials to it."""
        self.record, self.rungs = record, rungs
        self.first: dict[str, float] = {}
        self.common = common
        self.last_comparison: Comparison | None = None

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        pass

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        value, rung = result[OBJECTIVE], self._rung(trial.trial_id, result[POSITION])
        if rung is None or trial.trial_id in rung:
            return TrialScheduler.CONTINUE
        others = [*rung.values()]
        rung[trial.trial_id] = value
        if not others:
            return TrialScheduler.CONTINUE
        threshold = float(np.percentile(others, 100 / self.rungs.reduction))
        if value <= threshold:
            return TrialScheduler.CONTINUE
        self.last_comparison = Comparison(
            value=value,
            threshold=threshold,
            value_name="{objective}",
            threshold_name=f"the best {best_share(self.rungs.reduction)} of",
            trials=len(others),
            of_all=rung is not self.first,
        )
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        rung = self._rung(trial.trial_id, result[POSITION])
        if rung is not None:
            rung.setdefault(trial.trial_id, result[OBJECTIVE])

    def _rung(self, id: str, at: float) -> dict[str, float] | None:
        """The last rung that a trial has come to; None before the first."""
        budget = self.record[id].budget
        full_size = position(budget, budget.full_size_from)
        # A network that was still growing at a rung is not compared there: what it shows later is
        # no result of that time.
        passed = [rung for rung in self.rungs.common if full_size <= rung <= at]
        if passed:
            return self.common.setdefault(passed[-1], {})
        return self.first if at >= self.rungs.first else None

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        pass
