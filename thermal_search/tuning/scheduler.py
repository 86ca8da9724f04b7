"""Early stopping within each architecture: one ASHA (asynchronous successive halving) for each.

Growing and critic-heavy architectures learn slowly at first. Compared across architectures, they
would stop before they show anything, and the search would find the fastest starter. Networks that
grow are compared from their full size on.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.rungs import Rungs, is_comparable, position
from thermal_search.tuning.slots.messages import REPORT, TrialReport
from thermal_search.tuning.space import OBJECTIVE
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

POSITION = "position"
"""The key of how far a trial has come, in evaluations of its budget."""


class PerArchitectureASHA(FIFOScheduler):
    """One ASHA per architecture; its resource is the share of a trial's own budget, counted in
    evaluations.

    The rungs are filled from the record when a search resumes, so that its trials compete with
    those they would have competed with. The last evaluation of an unfinished trial is left out: the
    trial reports it again, and whether it stops there is decided as it would have been.
    """

    def __init__(self, record: SearchRecord) -> None:
        super().__init__()
        self.record = record
        self.schedulers: dict[str, ASHAScheduler] = {}
        for trial in record.trials.values():
            self._fill(record, trial)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it into files that are never read

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._scheduler(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["status"] != "running":
            return self.CONTINUE  # it ends by itself
        budget = self.record[trial.trial_id].budget
        if not is_comparable(budget, result["images"]):
            return self.CONTINUE
        result = self._with_objective(trial, result)
        scheduler = self._scheduler(trial)
        passed = _rung(scheduler, trial.trial_id, result[POSITION])
        decision = scheduler.on_trial_result(tune_controller, trial, result)
        if decision == self.STOP and passed:
            self.record.stop_reasons[trial.trial_id] = self._reason(trial, result, *passed)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Trials that have diverged, failed or were interrupted do not count in the rungs.
        if result.get("status") in ("running", "completed"):
            result = self._with_objective(trial, result)
            self._scheduler(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        with contextlib.suppress(KeyError):
            self._scheduler(trial).on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        return "ASHA within " + ", ".join(self.schedulers)

    def _with_objective(self, trial: Any, result: dict[str, Any]) -> dict[str, Any]:
        """A result with the objective of its trial at that time."""
        report: TrialReport = result[REPORT]
        assert report.evaluation
        value, *_ = self.record.objective_with(trial.trial_id, report.evaluation)
        budget = self.record[trial.trial_id].budget
        return result | {OBJECTIVE: value, POSITION: position(budget, report.evaluation.images)}

    def _reason(
        self, trial: Any, result: dict[str, Any], cutoff: float, compared: int
    ) -> str:
        reduction = self.record.plan.reduction
        best = "third" if reduction == 3 else f"1/{reduction:g}"
        return (
            f"at {result['images']:,} images {self.record.objective.axes[0]} "
            f"{result[OBJECTIVE]:.4g} was behind the best {best} ({cutoff:.4g}) of the {compared} "
            f"{trial.config['architecture']} trials compared there"
        )

    def _scheduler(self, trial: Any) -> ASHAScheduler:
        architecture: str = trial.config["architecture"]
        if architecture not in self.schedulers:
            rungs = Rungs.of(self.record[trial.trial_id].budget, self.record.plan.reduction)
            self.schedulers[architecture] = ASHAScheduler(
                time_attr=POSITION,
                metric=OBJECTIVE,
                mode="min",
                max_t=rungs.last,  # pyright: ignore[reportArgumentType] - computes with floats
                grace_period=rungs.first,  # pyright: ignore[reportArgumentType]
                reduction_factor=rungs.reduction,
            )
        return self.schedulers[architecture]

    def _fill(self, record: SearchRecord, past: TrialRecord) -> None:
        # ASHA reads no more of a trial than its id, and nothing of Ray Tune's controller.
        trial: Any = SimpleNamespace(trial_id=past.id, config={"architecture": past.architecture})
        controller: Any = None
        scheduler = self._scheduler(trial)
        scheduler.on_trial_add(controller, trial)
        decided = len(past.history) - (past.status in UNFINISHED)
        for count, evaluation in enumerate(past.history[: max(decided, 0)], start=1):
            if not is_comparable(past.budget, evaluation.images):
                continue
            value, *_ = record.objective_after(past, count)
            result = {POSITION: position(past.budget, evaluation.images), OBJECTIVE: value}
            scheduler.on_trial_result(controller, trial, result)


def _rung(scheduler: ASHAScheduler, trial: str, at: float) -> tuple[float, int] | None:
    """The cutoff of the rung that a trial reaches there, and how many have reached it before; None
    if it reaches none, or is the first one."""
    (bracket,) = scheduler._brackets  # pyright: ignore[reportPrivateUsage]
    for milestone, recorded in bracket._rungs:  # pyright: ignore[reportPrivateUsage]
        if at >= milestone and trial not in recorded:
            cutoff = bracket.cutoff(recorded)
            return None if cutoff is None else (-float(cutoff), len(recorded))  # ASHA maximizes
    return None
