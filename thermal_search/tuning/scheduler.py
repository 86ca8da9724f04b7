"""Early stopping within each architecture: one ASHA (asynchronous successive halving) for each.

Growing and critic-heavy architectures learn slowly at first. Compared across architectures at equal
images, they would stop before they show anything, and the search would find the fastest starter.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from thermal_search.storage import Location
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.space import OBJECTIVE


class PerArchitectureASHA(FIFOScheduler):
    """One ASHA per architecture; its resource is images shown.

    Ray Tune does not save its schedulers. When a search resumes, the rungs are filled from its
    record, so that a resumed trial competes with the trials it would have competed with.
    """

    def __init__(
        self, output: Location, *, images: int, grace_images: int, reduction: float
    ) -> None:
        super().__init__()
        self.output = output
        self.settings: dict[str, Any] = {
            "time_attr": "images",
            "metric": OBJECTIVE,
            "mode": "min",
            "max_t": images,
            "grace_period": min(grace_images, images),
            "reduction_factor": reduction,
        }
        self.schedulers: dict[str, ASHAScheduler] = {}
        self.is_restored = False

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._restore()
        self._scheduler(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["status"] != "running":
            return self.CONTINUE  # it ends by itself
        return self._scheduler(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Diverged and failed trials do not count in the rungs.
        if result.get("status") in ("running", "completed"):
            self._scheduler(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        with contextlib.suppress(KeyError):
            self._scheduler(trial).on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        return "ASHA within " + ", ".join(self.schedulers)

    def _scheduler(self, trial: Any) -> ASHAScheduler:
        architecture: str = trial.config["architecture"]
        if architecture not in self.schedulers:
            self.schedulers[architecture] = ASHAScheduler(**self.settings)
        return self.schedulers[architecture]

    def _restore(self) -> None:
        if self.is_restored:
            return
        self.is_restored = True
        try:
            record = SearchRecord.load(self.output)
        except FileNotFoundError:
            return
        for past in record.trials.values():
            # ASHA reads no more of a trial than its id.
            trial: Any = SimpleNamespace(
                trial_id=past.id, config={"architecture": past.architecture}
            )
            scheduler, controller = self._scheduler(trial), None
            scheduler.on_trial_add(controller, trial)  # pyright: ignore[reportArgumentType]
            history = [evaluation.metrics for evaluation in past.history]
            for count, evaluation in enumerate(past.history, start=1):
                value, *_ = record.objective.mean_of_last(history[:count], record.average_last)
                result = {"images": evaluation.images, OBJECTIVE: value}
                scheduler.on_trial_result(controller, trial, result)  # pyright: ignore[reportArgumentType]
