"""What Ray Tune tells, written down: the record, MLflow, and the screen."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from ray import tune

from thermal_search.tracking import SearchLog
from thermal_search.tuning.front import draw_front
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.progress import Progress
from thermal_search.tuning.record import FinalRecord, Floors, Kind, SearchRecord, TrialRecord
from thermal_search.tuning.space import OBJECTIVE, SECOND_OBJECTIVE, setting_of
from thermal_search.tuning.verdict import decide, told


def record_of(plan: SearchPlan) -> SearchRecord:
    """The record in the plan's output folder, begun where there is none yet."""
    try:
        return SearchRecord.load(plan.output)
    except FileNotFoundError:
        record = SearchRecord(
            plan.output,
            plan.metric,
            plan.features,
            objective=plan.aim,
            average_last=plan.average_last,
            protocol=plan.protocol,
        )
        record.save()
        return record


def _flat(floors: Floors) -> dict[str, float]:
    return {f"floor_{name}/{key}": v for name, floor in floors.items() for key, v in floor.items()}


class SearchCallback(tune.Callback):
    """Runs in the process that drives the search. Pickled by Ray before it is set up: only the
    plan travels, everything else is opened again from the output folder."""

    def __init__(self, plan: SearchPlan, kind: Kind) -> None:
        self.plan = plan
        self.kind: Kind = kind

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan, "kind": self.kind}

    def setup(self, *args: Any, **info: Any) -> None:
        plan = self.plan
        self.record = record_of(plan)
        self.log = SearchLog(plan.output, plan.id, plan.published())
        self.backlog: list[Callable[[], None]] = []
        self.progress = Progress(plan, self.record, self.kind)
        self.is_reconciled = False
        self.are_floors_logged = False

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._reconcile(trials)
        setting, id = setting_of(trial.config), trial.trial_id
        architecture: str = setting["architecture"]
        parameters: dict[str, Any] = setting.get(architecture, {})
        if self.kind == "finals":
            of, seed = setting["configuration"], setting["seed"]
            self.record.start_final(id, architecture, parameters, configuration=of, seed=seed)
        else:
            self.record.start(id, architecture, parameters)
        self._log(lambda: self._start_run(self.record[id]))
        self.progress.show(f"{id[-5:]} {architecture} starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        metric = self.plan.metric
        if metric not in result or not self.record.evaluate(trial.trial_id, result):
            return
        if self.record.floors and not self.are_floors_logged:
            self.are_floors_logged = True
            self._log(lambda: self.log.decide(_flat(self.record.floors), {}))
        id, images = trial.trial_id, result["images"]
        recorded = self.record[id]
        values = {
            **self._measured(recorded, len(recorded.history)),
            "seconds": result["seconds"],
            "images_per_second": result["images_per_second"],
            **result["losses"],
        }
        grid = self._trial_folder(trial) / result["grid"] if result["grid"] else None
        self._log(lambda: self.log.log_evaluation(id, images, values, grid))
        self.progress.show(
            f"{id[-5:]} {recorded.architecture} {images:,} images: "
            f"{metric} {result[metric]:.2f} ({result['images_per_second']:.1f} images/s)"
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        result: dict[str, Any] = trial.last_result
        status, reason = result.get("status", "running"), result.get("reason", "")
        if status == "running":
            status = "stopped"
            reason = (
                f"at {result['images']:,} images it was not among the best of the "
                f"{self.record[trial.trial_id].architecture} trials"
            )
        self._end(trial, status, reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() if hasattr(trial, "get_pickled_error") else None
        lines = str(error or "its slot was lost").strip().splitlines()
        self._end(trial, "failed", lines[-1][:400] if lines else "")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        metric, best = self.plan.metric, self.record.best
        found = (best.id, self.record.mean(best, metric)) if best else None
        self._log(lambda: self.log.end(metric, found))
        if self.record.objective.is_front and (picture := draw_front(self.record)):
            self._log(lambda: self.log.attach(picture))
        if self.kind == "finals" and decide(self.record):
            values, marks = told(self.record)
            self._log(lambda: self.log.decide(values, marks))
        self.progress.close()

    def _end(self, trial: Any, status: Any, reason: str) -> None:
        id = trial.trial_id
        self.record.end(id, status, reason)
        self._log(lambda: self._end_run(self.record[id]))
        self.progress.show(
            f"{id[-5:]} {self.record[id].architecture} {status}" + (f": {reason}" if reason else "")
        )

    def _reconcile(self, trials: list[Any]) -> None:
        """After a crash: drops what Ray Tune no longer knows, and tells MLflow what it missed."""
        if self.is_reconciled:
            return
        self.is_reconciled = True
        lost = self.record.forget_all_but((trial.trial_id for trial in trials), self.kind)
        self._log(lambda: self.log.forget(lost))
        known = self.record.finals if self.kind == "finals" else self.record.trials
        for trial in known.values():
            self._log(lambda trial=trial: self._catch_up(trial))

    def _catch_up(self, trial: TrialRecord) -> None:
        self._start_run(trial)
        logged = self.log.logged_images(trial.id, self.plan.metric)
        for count, item in enumerate(trial.history, start=1):
            if item["images"] not in logged:
                self.log.log_evaluation(trial.id, item["images"], self._measured(trial, count))
        if trial.status != "running":
            self._end_run(trial)

    def _measured(self, trial: TrialRecord, count: int) -> dict[str, float]:
        """What was measured at evaluation `count` (from 1), and what the trial was then worth."""
        worth = self.record.objective.worth(trial.history[:count], self.record.average_last)
        named = dict(zip((OBJECTIVE, SECOND_OBJECTIVE), worth, strict=False))
        return {
            key: value for key, value in trial.history[count - 1].items() if key != "images"
        } | named

    def _start_run(self, trial: TrialRecord) -> None:
        tags: dict[str, str] = {}
        if isinstance(trial, FinalRecord):
            tags = {"finalist": trial.configuration, "seed": str(trial.seed)}
        self.log.start_trial(trial.id, trial.architecture, trial.parameters, tags)

    def _end_run(self, trial: TrialRecord) -> None:
        tags: dict[str, str] = {}
        if trial.beats_inverted_grey is not None:
            tags["beats_inverted_grey"] = str(trial.beats_inverted_grey).lower()
        self.log.end_trial(trial.id, trial.status, trial.reason, tags)

    def _trial_folder(self, trial: Any) -> Path:
        return self.plan.output / self.kind / trial.trial_id

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
