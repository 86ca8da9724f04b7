"""What Ray Tune reports, passed on: to the record, to MLflow, and to the screen."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from optuna.storages import BaseStorage
from ray import tune
from ray.exceptions import RayTaskError

from thermal_search.evaluation.baselines import Baselines
from thermal_search.evaluation.comparison import comparison_tags
from thermal_search.storage import Location
from thermal_search.tracking.log_queue import LogQueue
from thermal_search.tracking.runs import SearchLogger
from thermal_search.tracking.store import prepare_database
from thermal_search.training.trial_plan import grid_name
from thermal_search.tuning.final_ranking import mlflow_summary
from thermal_search.tuning.pareto_plot import draw_pareto_front
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.progress import Progress
from thermal_search.tuning.ranking_text import compare_trial
from thermal_search.tuning.record import Phase, SearchRecord
from thermal_search.tuning.shared_study import SharedStudy
from thermal_search.tuning.slots.messages import REPORT, TrialReport
from thermal_search.tuning.space import OBJECTIVE, SECOND_OBJECTIVE
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.summary import RetrainingRecord, Status, TrialRecord

TIMEOUT_S = 120.0
"""How long the end of a search waits for an MLflow server that is unreachable."""


def resume_command(plan: SearchPlan) -> str:
    """The command that continues a search."""
    return f"thermal-search search --output {shlex.quote(str(plan.output))} --resume"


def _flatten(baselines: Baselines) -> dict[str, float]:
    return {
        f"baseline_{name}/{key}": value
        for name, metrics in baselines.items()
        for key, value in metrics.items()
    }


class SearchCallback(tune.Callback):
    """Runs in the process that drives the search. Ray Tune pickles its callbacks into files that
    are never read again."""

    def __init__(
        self,
        record: SearchRecord,
        phase: Phase,
        stopper: SearchStopper,
        storage: BaseStorage | None = None,
        stop_reasons: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            storage: Optuna's, for the study that others open; None for no such study.
            stop_reasons: why the scheduler stops a trial, by id; it is filled while trials run.
        """
        self.stop_reasons = {} if stop_reasons is None else stop_reasons
        self.record, self.plan, self.stopper = record, record.plan, stopper
        self.phase: Phase = phase
        self.storage = storage
        self.has_evaluated = False
        """Whether a slot of this run has evaluated a trial."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        plan = self.plan
        self.progress = Progress(plan, self.record, self.phase)
        prepare_database(plan.output, self.progress.warn)
        self.logger = SearchLogger(plan.output, plan.id, plan.mlflow_params())
        self.log_queue = LogQueue(self.progress.warn)
        self.study = (
            SharedStudy(self.record, self.storage, self.progress.warn) if self.storage else None
        )
        self.are_baselines_logged = False
        if self.phase == "trials":
            self.logger.begin()  # a server that refuses does so before anything is trained
        else:
            self._log(self.logger.open)
        for trial in self._records.values():
            # A copy as it is now: later evaluations are logged by their own entries.
            past = trial.model_copy(update={"history": [*trial.history]})
            self._log(lambda past=past: self._catch_up(past))
        with self.stopper.on_storage_faults():
            self.record.flush()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        with self.stopper.on_storage_faults():
            self.record.write_summary()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        id = trial.trial_id
        with self.stopper.on_storage_faults():
            self.record.start(id)
        self._share(id)
        self._log(lambda: self._start_run(self.record[id]))
        self.progress.show(f"{id} {self.record[id].architecture} starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        report: TrialReport | None = result.get(REPORT)
        id, is_new = trial.trial_id, False
        with self.stopper.on_storage_faults():
            is_new = report is not None and self.record.add_evaluation(id, report)
        if report is None or not is_new:
            return
        self.has_evaluated = True
        self._share(id)
        evaluation = report.evaluation
        assert evaluation
        if self.record.baselines and not self.are_baselines_logged:
            self.are_baselines_logged = True
            self._log(lambda: self.logger.log_summary(_flatten(self.record.baselines), {}))
        record = self.record[id]
        values = {
            **self._metrics(record, len(record.history)),
            "seconds": evaluation.seconds,
            "images_per_second": evaluation.images_per_second,
            **evaluation.losses,
        }
        grid = self._folder(id) / evaluation.grid if evaluation.grid else None
        self._log(lambda: self.logger.log_evaluation(id, evaluation.images, values, grid))
        metric = self.plan.metric
        self.progress.show(
            f"{id} {record.architecture} {evaluation.images:,} images: "
            f"{metric} {evaluation.metrics[metric]:.2f} "
            f"({evaluation.images_per_second:.1f} images/s)"
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        report: TrialReport | None = trial.last_result.get(REPORT)
        status: Status = report.status if report else "running"
        reason = report.reason if report else ""
        if status == "running":
            images, status = self.record[trial.trial_id].images, "stopped"
            reason = self.stop_reasons.get(trial.trial_id, f"at {images:,} images")
        self._end(trial.trial_id, status, reason)
        if report and report.stops_search:
            self.stopper.report_fault(reason)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        reason = _reason(trial)
        if self.has_evaluated:
            self.progress.warn(f"{trial.trial_id} lost its slot and starts in another: {reason}")
        else:
            # Nothing has worked yet, and nothing suggests that another attempt would.
            self.stopper.report_fault(reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._end(trial.trial_id, "interrupted", _reason(trial))

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self.finish()

    def resend(self) -> None:
        """Logs to MLflow what it missed of a search that has ended."""
        self.setup()
        self.finish()

    def finish(self) -> None:
        """Ends the record, the runs in MLflow and the progress display."""
        if reason := self.stopper.reason:
            for trial in self._records.values():
                if trial.status == "running":
                    self._end(trial.id, "interrupted", reason)
        with self.stopper.on_storage_faults():
            self.record.flush()
        metric, best = self.plan.metric, self.record.best
        logged = (best.id, self.record.metric_mean(best, metric)) if best else None
        status = "interrupted" if self.stopper.reason else "completed"
        self._log(lambda: self.logger.end(metric, logged, status))
        if self.record.objective.has_two_objectives:
            self._log_pareto_front()
        if ranking := self.record.final_ranking:
            values, tags = mlflow_summary(ranking)
            self._log(lambda: self.logger.log_summary(values, tags))
        if left := self.log_queue.close(TIMEOUT_S):
            self.progress.warn(
                f"MLflow has been unreachable for {TIMEOUT_S:.0f} s: the last {left} entries are "
                "not logged. Nothing else is lost. When the server is back, run "
                f"{resume_command(self.plan)} to log them."
            )
        if self.study:
            self.study.close()
        self.progress.close()

    def _log_pareto_front(self) -> None:
        pareto_front = self.record.pareto_front()
        for trial in self.record.ranking():
            tags = {"on_pareto_front": str(trial.id in pareto_front).lower()}
            self._log(lambda id=trial.id, tags=tags: self.logger.set_tags(id, tags))
        if figure := draw_pareto_front(self.record):
            self._log(lambda: self.logger.log_figure(figure))

    def _end(self, id: str, status: Status, reason: str) -> None:
        with self.stopper.on_storage_faults():
            self.record.end(id, status, reason)
        self._share(id)
        self._log(lambda: self._end_run(self.record[id]))
        self.progress.show(
            f"{id} {self.record[id].architecture} {status}" + (f": {reason}" if reason else "")
        )

    def _share(self, id: str) -> None:
        if self.study:
            self.study.update(self.record[id])

    def _catch_up(self, trial: TrialRecord) -> None:
        self._start_run(trial)
        logged = self.logger.logged_images(trial.id, self.plan.metric)
        for count, evaluation in enumerate(trial.history, start=1):
            if evaluation.images not in logged:
                grid = self._folder(trial.id) / grid_name(evaluation.images)
                values = self._metrics(trial, count)
                self.logger.log_evaluation(trial.id, evaluation.images, values, grid)
        if trial.status != "running":
            self._end_run(trial)

    def _metrics(self, trial: TrialRecord, count: int) -> dict[str, float]:
        """The metrics of evaluation `count` (from 1), and the trial's objective at that time."""
        values = self.record.objective_after(trial, count)
        names = (OBJECTIVE, SECOND_OBJECTIVE)
        return trial.history[count - 1].metrics | dict(zip(names, values, strict=False))

    def _start_run(self, trial: TrialRecord) -> None:
        tags: dict[str, str] = {}
        if isinstance(trial, RetrainingRecord):
            tags = {"finalist": trial.finalist, "seed": str(trial.seed)}
        self.logger.start_trial(trial.id, trial.architecture, trial.parameters, tags)

    def _end_run(self, trial: TrialRecord) -> None:
        tags: dict[str, str] = {}
        if trial.beats_inverted_grey is not None:
            tags["beats_inverted_grey"] = str(trial.beats_inverted_grey).lower()
            tags |= comparison_tags(compare_trial(self.record, trial))
        self.logger.end_trial(trial.id, trial.status, trial.reason, tags)

    @property
    def _records(self) -> Mapping[str, TrialRecord]:
        return self.record.retrainings if self.phase == "retrainings" else self.record.trials

    def _folder(self, id: str) -> Location:
        return self.plan.output / self.phase / id

    def _log(self, entry: Callable[[], None]) -> None:
        """An unreachable MLflow server costs no trial: entries are queued and retried in order."""
        self.log_queue.add(entry)


def _reason(trial: Any) -> str:
    """Why a trial of Ray Tune lost its slot, in one line."""
    error = trial.get_pickled_error() if hasattr(trial, "get_pickled_error") else None
    lines = str(error or "its slot was lost").strip().splitlines() or [""]
    # A traceback ends with the error; the message of a process that died begins with it.
    return lines[-1 if isinstance(error, RayTaskError) else 0][:400]
