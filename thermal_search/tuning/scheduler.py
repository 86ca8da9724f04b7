"""Early stopping within each architecture: one ASHA (asynchronous successive halving) for each.

Growing and critic-heavy architectures learn slowly at first. Compared across architectures at equal
images, they would stop before they show anything, and the search would find the fastest starter.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import REPORT, TrialReport
from thermal_search.tuning.space import OBJECTIVE
from thermal_search.tuning.summary import UNFINISHED, TrialRecord


class PerArchitectureASHA(FIFOScheduler):
    """One ASHA per architecture; its resource is images shown.

    The rungs are filled from the record when a search resumes, so that its trials compete with
    those they would have competed with. The last evaluation of an unfinished trial is left out: the
    trial reports it again, and whether it stops there is decided as it would have been.
    """

    def __init__(self, record: SearchRecord) -> None:
        super().__init__()
        self.record, plan = record, record.plan
        self.settings: dict[str, Any] = {
            "time_attr": "images",
            "metric": OBJECTIVE,
            "mode": "min",
            "max_t": plan.images,
            "grace_period": min(plan.evaluate_every, plan.images),
            "reduction_factor": plan.reduction,
        }
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
        result = self._with_objective(trial, result)
        return self._scheduler(trial).on_trial_result(tune_controller, trial, result)

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
        return result | {OBJECTIVE: value}

    def _scheduler(self, trial: Any) -> ASHAScheduler:
        architecture: str = trial.config["architecture"]
        if architecture not in self.schedulers:
            self.schedulers[architecture] = ASHAScheduler(**self.settings)
        return self.schedulers[architecture]

    def _fill(self, record: SearchRecord, past: TrialRecord) -> None:
        # ASHA reads no more of a trial than its id, and nothing of Ray Tune's controller.
        trial: Any = SimpleNamespace(trial_id=past.id, config={"architecture": past.architecture})
        controller: Any = None
        scheduler = self._scheduler(trial)
        scheduler.on_trial_add(controller, trial)
        decided = len(past.history) - (past.status in UNFINISHED)
        for count, evaluation in enumerate(past.history[: max(decided, 0)], start=1):
            value, *_ = record.objective_after(past, count)
            result = {"images": evaluation.images, OBJECTIVE: value}
            scheduler.on_trial_result(controller, trial, result)
