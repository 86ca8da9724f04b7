"""Early stopping that compares like with like: successive halving within each architecture.

Growing and critic-heavy architectures start slowly. Compared across architectures at equal images,
they would be stopped before they show anything, and the search would find the fastest starter.
"""

import contextlib
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler

from thermal_search.storage import Location
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.space import OBJECTIVE


class PerArchitectureASHA(FIFOScheduler):
    """One ASHA an architecture, on images shown.

    Ray Tune does not save its schedulers. After a crash the rungs are filled again from the record
    of the search, so that a resumed trial meets the competitors it would have met.
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
        self.is_recovered = False

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._recover()
        self._scheduler(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["status"] != "running":
            return self.CONTINUE  # it ends by itself
        return self._scheduler(trial).on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # A trial that broke has no say in what counts as good.
        if result.get("status") in ("running", "completed"):
            self._scheduler(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        with contextlib.suppress(KeyError):
            self._scheduler(trial).on_trial_remove(tune_controller, trial)

    def debug_string(self) -> str:
        return "Successive halving within " + ", ".join(self.schedulers)

    def _scheduler(self, trial: Any) -> ASHAScheduler:
        architecture: str = trial.config["architecture"]
        if architecture not in self.schedulers:
            self.schedulers[architecture] = ASHAScheduler(**self.settings)
        return self.schedulers[architecture]

    def _recover(self) -> None:
        if self.is_recovered:
            return
        self.is_recovered = True
        try:
            record = SearchRecord.load(self.output)
        except FileNotFoundError:
            return
        for past in record.trials.values():
            trial = SimpleNamespace(trial_id=past.id, config={"architecture": past.architecture})
            channels_by_resolution = self._scheduler(trial)
            channels_by_resolution.on_trial_add(None, trial)  # pyright: ignore[reportArgumentType] - ASHA reads no more of a trial than its id
            for count, item in enumerate(past.history, start=1):
                worth, *_ = record.objective.worth(past.history[:count], record.average_last)
                channels_by_resolution.on_trial_result(
                    None, trial, {"images": item["images"], OBJECTIVE: worth}
                )  # pyright: ignore[reportArgumentType]
