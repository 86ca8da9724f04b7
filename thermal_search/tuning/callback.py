"""What Ray Tune tells, written down: the record, MLflow, and the screen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from ray import tune

from thermal_search.tracking import SearchLog
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.progress import Progress
from thermal_search.tuning.record import SearchRecord


class SearchCallback(tune.Callback):
    """Runs in the process that drives the search. Pickled by Ray before it is set up: only the
    plan travels, everything else is opened again from the output folder."""

    def __init__(self, plan: SearchPlan) -> None:
        self.plan = plan

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan}

    def setup(self, *args: Any, **info: Any) -> None:
        plan = self.plan
        try:
            self.record = SearchRecord.load(plan.output)
        except FileNotFoundError:
            self.record = SearchRecord(plan.output, plan.metric, plan.features)
            self.record.save()
        self.log = SearchLog(plan.output, plan.id, plan.published())
        self.backlog: list[Callable[[], None]] = []
        self.progress = Progress(plan, self.record)
        self.is_reconciled = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._reconcile(trials)
        architecture: str = trial.config["architecture"]
        parameters: dict[str, Any] = trial.config.get(architecture, {})
        self.record.start(trial.trial_id, architecture, parameters)
        self._log(lambda: self.log.start_trial(trial.trial_id, architecture, parameters))
        self.progress.show(f"{trial.trial_id[-5:]} {architecture} starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        metric = self.plan.metric
        if metric not in result or not self.record.evaluate(trial.trial_id, result):
            return
        values = {
            metric: result[metric],
            "seconds": result["seconds"],
            "images_per_second": result["images_per_second"],
            **result["beside"],
            **result["losses"],
        }
        grid = self._trial_folder(trial) / result["grid"] if result["grid"] else None
        id, images = trial.trial_id, result["images"]
        self._log(lambda: self.log.log_evaluation(id, images, values, grid))
        self.progress.show(
            f"{id[-5:]} {trial.config['architecture']} {images:,} images: "
            f"{metric} {result[metric]:.2f} ({result['images_per_second']:.1f} images/s)"
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result: dict[str, Any] = trial.last_result
        status, reason = result.get("status", "running"), result.get("reason", "")
        if status == "running":
            status = "stopped"
            reason = (
                f"at {result['images']:,} images it was not among the best of the "
                f"{trial.config['architecture']} trials"
            )
        self._end(trial, status, reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() if hasattr(trial, "get_pickled_error") else None
        lines = str(error or "its slot was lost").strip().splitlines()
        self._end(trial, "failed", lines[-1][:400] if lines else "")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        best = self.record.best
        score = best.best_score(self.plan.metric) if best else None
        found = (best.id, score) if best and score is not None else None
        self._log(lambda: self.log.end(self.plan.metric, found))
        self.progress.close()

    def _end(self, trial: Any, status: Any, reason: str) -> None:
        self.record.end(trial.trial_id, status, reason)
        self._log(lambda: self.log.end_trial(trial.trial_id, status, reason))
        self.progress.show(
            f"{trial.trial_id[-5:]} {trial.config['architecture']} {status}"
            + (f": {reason}" if reason else "")
        )

    def _reconcile(self, trials: list[Any]) -> None:
        """After a crash: drops what Ray Tune no longer knows, and tells MLflow what it missed."""
        if self.is_reconciled:
            return
        self.is_reconciled = True
        lost = self.record.forget_all_but(trial.trial_id for trial in trials)
        self._log(lambda: self.log.forget(lost))
        for trial in self.record.trials.values():
            self._log(lambda trial=trial: self._catch_up(trial))

    def _catch_up(self, trial: Any) -> None:
        metric = self.plan.metric
        self.log.start_trial(trial.id, trial.architecture, trial.parameters)
        logged = self.log.logged_images(trial.id, metric)
        for item in trial.history:
            if item["images"] not in logged:
                self.log.log_evaluation(trial.id, item["images"], {metric: item[metric]})
        if trial.status != "running":
            self.log.end_trial(trial.id, trial.status, trial.reason)

    def _trial_folder(self, trial: Any) -> Path:
        return self.plan.output / "trials" / trial.trial_id

    def _log(self, entry: Callable[[], None]) -> None:
        """Logs in order; an MLflow server that is away costs no trial, it is told later."""
        self.backlog.append(entry)
        try:
            while self.backlog:
                self.backlog[0]()
                self.backlog.pop(0)
        except MlflowException as error:
            first = str(error).splitlines()[0]
            self.progress.warn(f"MLflow does not answer, {len(self.backlog)} entries wait: {first}")
