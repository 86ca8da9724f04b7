"""What Ray Tune tells, written down: the record, MLflow, and the screen."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ray import tune
from ray.exceptions import RayTaskError

from thermal_search.evaluation.baselines import Baselines
from thermal_search.storage import Location
from thermal_search.tracking.log_queue import LogQueue
from thermal_search.tracking.runs import SearchLogger
from thermal_search.training.trial import grid_name
from thermal_search.tuning.final_ranking import decide, told
from thermal_search.tuning.pareto_plot import draw_pareto_front
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.progress import Progress
from thermal_search.tuning.record import Kind, RetrainingRecord, SearchRecord, TrialRecord
from thermal_search.tuning.space import OBJECTIVE, SECOND_OBJECTIVE, setting_of

TIMEOUT_S = 120.0
"""How long the end of a search waits for an MLflow server that is away."""


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


def _flat(baselines: Baselines) -> dict[str, float]:
    return {
        f"baseline_{name}/{key}": v
        for name, baseline in baselines.items()
        for key, v in baseline.items()
    }


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
        self.log = SearchLogger(plan.output, plan.id, plan.published())
        self.progress = Progress(plan, self.record, self.kind)
        self.log_queue = LogQueue(self.progress.warn)
        self.is_reconciled = False
        self.are_baselines_logged = False
        if self.kind == "trials":
            self.log.begin()  # a server that refuses us does so before anything is trained
        else:
            self._log(self.log.open)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._reconcile(trial.trial_id for trial in trials)
        setting, id = setting_of(trial.config), trial.trial_id
        architecture: str = setting["architecture"]
        parameters: dict[str, Any] = setting.get(architecture, {})
        if self.kind == "retrainings":
            of, seed = setting["configuration"], setting["seed"]
            self.record.start_retraining(id, architecture, parameters, configuration=of, seed=seed)
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
        if self.record.baselines and not self.are_baselines_logged:
            self.are_baselines_logged = True
            self._log(lambda: self.log.decide(_flat(self.record.baselines), {}))
        id, images = trial.trial_id, result["images"]
        recorded = self.record[id]
        values = {
            **self._measured(recorded, len(recorded.history)),
            "seconds": result["seconds"],
            "images_per_second": result["images_per_second"],
            **result["losses"],
        }
        grid = self._folder(id) / result["grid"] if result["grid"] else None
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
        lines = str(error or "its slot was lost").strip().splitlines() or [""]
        # A traceback ends with what happened; the death of a process begins with it.
        line = lines[-1 if isinstance(error, RayTaskError) else 0]
        self._end(trial, "failed", line[:400])

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._finish(trial.trial_id for trial in trials)

    def resend(self) -> None:
        """Tells MLflow what it missed of what has ended long ago."""
        self.setup()
        self._finish(self._known)

    def _finish(self, ids: Iterable[str]) -> None:
        self._reconcile(ids)  # of a search that had nothing left to run
        metric, best = self.plan.metric, self.record.best
        found = (best.id, self.record.mean(best, metric)) if best else None
        self._log(lambda: self.log.end(metric, found))
        if self.record.objective.has_two_objectives:
            self._log_pareto_front()
        if self.kind == "retrainings" and decide(
            self.record, self.plan.finalists * self.plan.seeds
        ):
            values, marks = told(self.record)
            self._log(lambda: self.log.decide(values, marks))
        if left := self.log_queue.close(TIMEOUT_S):
            self.progress.warn(
                f"MLflow has not answered for {TIMEOUT_S:.0f} s: its last {left} entries are not "
                "logged. Nothing else is lost; when the server is back, thermal-search search "
                f"--output {shlex.quote(str(self.plan.output))} --resume logs them."
            )
        self.progress.close()

    def _log_pareto_front(self) -> None:
        on_pareto_front = self.record.front()
        for trial in self.record.ranking():
            marks = {"on_pareto_front": str(trial.id in on_pareto_front).lower()}
            self._log(lambda id=trial.id, marks=marks: self.log.mark(id, marks))
        if image := draw_pareto_front(self.record):
            self._log(lambda: self.log.attach(image))

    def _end(self, trial: Any, status: Any, reason: str) -> None:
        id = trial.trial_id
        self.record.end(id, status, reason)
        self._log(lambda: self._end_run(self.record[id]))
        self.progress.show(
            f"{id[-5:]} {self.record[id].architecture} {status}" + (f": {reason}" if reason else "")
        )

    def _reconcile(self, ids: Iterable[str]) -> None:
        """After a crash: drops what Ray Tune no longer knows, and tells MLflow what it missed."""
        if self.is_reconciled:
            return
        self.is_reconciled = True
        lost = self.record.forget_all_but(ids, self.kind)
        self._log(lambda: self.log.forget(lost))
        for trial in self._known.values():
            # As it is now: what comes later has its own entries.
            past = replace(trial, history=[*trial.history])
            self._log(lambda past=past: self._catch_up(past))

    def _catch_up(self, trial: TrialRecord) -> None:
        self._start_run(trial)
        logged = self.log.logged_images(trial.id, self.plan.metric)
        for count, item in enumerate(trial.history, start=1):
            if item["images"] not in logged:
                grid = self._folder(trial.id) / grid_name(item["images"])
                values = self._measured(trial, count)
                self.log.log_evaluation(trial.id, item["images"], values, grid)
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
        if isinstance(trial, RetrainingRecord):
            tags = {"finalist": trial.configuration, "seed": str(trial.seed)}
        self.log.start_trial(trial.id, trial.architecture, trial.parameters, tags)

    def _end_run(self, trial: TrialRecord) -> None:
        tags: dict[str, str] = {}
        if trial.beats_inverted_grey is not None:
            tags["beats_inverted_grey"] = str(trial.beats_inverted_grey).lower()
        self.log.end_trial(trial.id, trial.status, trial.reason, tags)

    @property
    def _known(self) -> Mapping[str, TrialRecord]:
        return self.record.retrainings if self.kind == "retrainings" else self.record.trials

    def _folder(self, id: str) -> Location:
        return self.plan.output / self.kind / id

    def _log(self, entry: Callable[[], None]) -> None:
        """An MLflow server that is away costs no trial: it is told later, in order."""
        self.log_queue.add(entry)
