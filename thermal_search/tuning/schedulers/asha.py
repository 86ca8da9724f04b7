"""Asynchronous successive halving (Li et al. 2020): --scheduler asha."""

from typing import Any

from ray.tune.schedulers import ASHAScheduler

from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.schedulers.per_architecture import (
    POSITION,
    Comparison,
    PerArchitectureScheduler,
    StoppingRule,
)
from thermal_search.tuning.space import OBJECTIVE


class ASHARule(ASHAScheduler):
    """Ray Tune's ASHA; with several brackets, a trial's bracket follows from its id."""

    def __init__(self, *, brackets: int = 1, seed: int = 0, **settings: Any) -> None:
        super().__init__(brackets=brackets, **settings)
        self.last_comparison: Comparison | None = None
        self.seed = seed

    def bracket_of(self, id: str) -> int:
        """The index of a trial's bracket; 0 begins to stop trials first."""
        return 0

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        # Ray Tune draws the bracket anew in each process.
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
            threshold_name=f"the best {_share(self._reduction_factor)} of",
            trials=len(others),
            where="in its bracket" if len(self._brackets) > 1 else "",
        )


class PerArchitectureASHA(PerArchitectureScheduler):
    """One ASHA per architecture."""

    def create_rule(self, rungs: Rungs) -> StoppingRule:
        return ASHARule(**asha_settings(rungs))


def asha_settings(rungs: Rungs) -> dict[str, Any]:
    """Of Ray Tune's ASHA, for one architecture of a search."""
    return {
        "time_attr": POSITION,
        "metric": OBJECTIVE,
        "mode": "min",
        "max_t": rungs.last,
        "grace_period": rungs.first,
        "reduction_factor": rungs.reduction,
    }


def _share(reduction: float) -> str:
    """1/reduction, in words."""
    words: dict[float, str] = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 10: "tenth"}
    return words.get(reduction) or f"{100 / reduction:.0f} %"
