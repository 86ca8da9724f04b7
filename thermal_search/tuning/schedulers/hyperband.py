"""Asynchronous Hyperband within each architecture: ASHA with several brackets.

ASHA stops most trials at its first rung, and so prefers settings that start fast. Hyperband hedges:
it runs brackets side by side whose first rungs lie further and further back. Ray Tune's synchronous
Hyperband pauses the trials of a rung until the last one has come; a slot cannot pause a trial, and
would stand idle. Its asynchronous form (Li et al. 2018, https://arxiv.org/abs/1810.05934, section
3.3) pauses none.
"""

import hashlib
import itertools
import math
from typing import Any

from ray.tune.schedulers import ASHAScheduler

from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.schedulers.per_architecture import (
    POSITION,
    Comparison,
    PerArchitectureScheduler,
    StoppingRule,
    best_share,
)
from thermal_search.tuning.space import OBJECTIVE

MAX_BRACKETS = 3


def bracket_weights(rungs: Rungs) -> list[float]:
    """How many trials each bracket gets, relative to the others: so many that every one takes about
    the same number of images in all. The first begins to stop trials first."""
    count = max(min(_rung_count(rungs), MAX_BRACKETS), 1)
    return [rungs.reduction**further / (further + 1) for further in range(count - 1, -1, -1)]


def bracket_rungs(rungs: Rungs, bracket: int) -> list[float]:
    """The rungs of a bracket in evaluations, increasing, as Ray Tune's ASHAScheduler places
    them."""
    powers = range(bracket, _rung_count(rungs))
    return [rungs.first * rungs.reduction**power for power in powers]


def _rung_count(rungs: Rungs) -> int:
    ratio = rungs.last / rungs.first
    return int(math.log(ratio) / math.log(rungs.reduction)) + 1


class PerArchitectureHyperband(PerArchitectureScheduler):
    """One asynchronous Hyperband per architecture."""

    def create_rule(self, rungs: Rungs) -> StoppingRule:
        return HyperbandRule(
            seed=self.record.plan.seed,
            weights=bracket_weights(rungs),
            time_attr=POSITION,
            metric=OBJECTIVE,
            mode="min",
            max_t=rungs.last,
            grace_period=rungs.first,
            reduction_factor=rungs.reduction,
        )


class HyperbandRule(ASHAScheduler):
    """Ray Tune's ASHA with brackets that get as many trials as Hyperband gives them.

    Ray Tune draws a trial's bracket with a generator that no search could resume.
    """

    def __init__(self, *, seed: int, weights: list[float], **settings: Any) -> None:
        super().__init__(brackets=len(weights), **settings)
        self.weights = weights
        self.last_comparison: Comparison | None = None
        self.seed = seed

    def bracket_of(self, id: str) -> int:
        """The index of a trial's bracket; 0 begins to stop trials first."""
        digest = hashlib.sha256(f"{self.seed} {id}".encode()).digest()
        drawn = int.from_bytes(digest[:6], "big") / 2**48 * sum(self.weights)
        return sum(drawn >= bound for bound in itertools.accumulate(self.weights[:-1]))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._trial_info[trial.trial_id] = self._brackets[self.bracket_of(trial.trial_id)]

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        rungs: list[tuple[float, dict[str, float]]] = self._trial_info[trial.trial_id]._rungs  # pyright: ignore[reportPrivateUsage]
        before = [trial.trial_id in rung for _, rung in rungs]
        decision = super().on_trial_result(tune_controller, trial, result)
        if decision == self.STOP:
            entered = [
                rung
                for (_, rung), was_in in zip(rungs, before, strict=True)
                if trial.trial_id in rung and not was_in
            ]
            self.last_comparison = self._compare(trial.trial_id, result, entered)
        return decision

    def _compare(
        self, id: str, result: dict[str, Any], entered: list[dict[str, float]]
    ) -> Comparison | None:
        """`entered`: the rung that decided; none at the end of the budget."""
        if not entered:
            return None
        others = {other: value for other, value in entered[0].items() if other != id}
        return Comparison(
            value=result[OBJECTIVE],
            threshold=-float(self._trial_info[id].cutoff(others)),
            value_name="{objective}",
            threshold_name=f"the best {best_share(self._reduction_factor)} of",
            trials=len(others),
            where="in its bracket" if len(self._brackets) > 1 else "",
        )
