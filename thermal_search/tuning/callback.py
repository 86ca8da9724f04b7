"""What Ray Tune reports, passed on: to the record, to MLflow, and to the screen."""

import contextlib
import time
from collections.abc import Callable, Container, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage
from ray import cloudpickle, tune
from ray.exceptions import RayTaskError

from thermal_search import checkpoint
from thermal_search.errors import StorageError
from thermal_search.evaluation.comparison import comparison_tags
from thermal_search.tracking.log_queue import LogQueue
from thermal_search.tracking.provenance import dataset_input
from thermal_search.tracking.runs import SearchLogger
from thermal_search.tracking.store import prepare_database
from thermal_search.training.trial_plan import grid_name
from thermal_search.tuning.course import config_of
from thermal_search.tuning.exploits import ExploitRecord
from thermal_search.tuning.final_ranking import mlflow_summary
from thermal_search.tuning.hours import SearchTime
from thermal_search.tuning.logged_metrics import (
    end_tags,
    grid_step,
    lineage_tags,
    logged_metrics,
    logged_training,
    objective_sentence,
    search_view,
    start_tags,
)
from thermal_search.tuning.pareto_plot import draw_pareto_front
from thermal_search.tuning.plan import FILE as PLAN
from thermal_search.tuning.progress import Progress
from thermal_search.tuning.ranking_text import compare_trial
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.record_files import BASELINES_FILE, REPORT_FILE, Phase
from thermal_search.tuning.search_note import search_note
from thermal_search.tuning.shared_study import SharedStudy
from thermal_search.tuning.slots.mailbox import redirect_trial, stop_slots
from thermal_search.tuning.slots.messages import REPORT, START_FAILURE, StartFailure, TrialReport
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.summary import FILE as SUMMARY
from thermal_search.tuning.summary import OUT_OF_TIME, UNFINISHED, Status, TrialRecord
from thermal_search.tuning.time_left import Estimate

TIMEOUT_S = 120.0
"""How long the end of a search waits for an MLflow server that is unreachable, and for a storage of
Optuna that does not answer."""

DESCRIPTION_INTERVAL_S = 30.0
"""Least time between two descriptions of a search that runs: each ranks all trials."""

STOP_TIMEOUT_S = 10.0
"""The same if the search is stopped: what it misses is logged when the search resumes."""


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
        exploits: MutableMapping[str, ExploitRecord] | None = None,
        *,
        time: SearchTime | None = None,
        estimate: Estimate | None = None,
    ) -> None:
        """
        Args:
            storage: Optuna's, for the study that others open; None for no such study.
            stop_reasons: why the scheduler stops a trial, by id; it is filled while trials run.
            exploits: what pbt decides by the evaluation that is reported next, by id.
            time: of a search with --hours.
            estimate: of the time left.
        """
        self.stop_reasons = {} if stop_reasons is None else stop_reasons
        self.exploits = {} if exploits is None else exploits
        self.record, self.plan, self.stopper = record, record.plan, stopper
        self.phase: Phase = phase
        self.storage, self.time, self.estimate = storage, time, estimate
        self.has_evaluated = False
        """Whether a slot of this run has evaluated a trial."""

        self.are_slots_stopped = False
        self.start_failures: set[str] = set()
        """Why workers could not start, as far as it was shown."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def setup(self, *args: Any, **info: Any) -> None:
        plan = self.plan
        self.progress = Progress(plan, self.record, self.phase, estimate=self.estimate)
        prepare_database(plan.output, self.progress.warn)
        self.logger = SearchLogger(
            plan.output,
            plan.id,
            plan.mlflow_params(),
            dataset=dataset_input(plan.data, plan.dataset_digest, plan.protocol),
            view=search_view(plan),
        )
        self.log_queue = LogQueue(self.progress.warn)
        self.study = (
            SharedStudy(self.record, self.storage, self.progress.warn) if self.storage else None
        )
        self.are_baselines_logged = False
        if self.phase == "trials":
            self.logger.begin()  # a server that refuses does so before anything is trained
        else:
            self._log(self.logger.open)
        sentence = objective_sentence(self.record.objective, plan.average_last)
        self._log(lambda: self.logger.log_summary({}, {"objective": sentence}))
        self._describe()
        for trial in self._records.values():
            self._remove_states(trial)  # a search that was killed may have left them
            # A copy as it is now: later evaluations are logged by their own entries.
            past = trial.model_copy(update={"history": [*trial.history]})
            self._log(lambda past=past: self._catch_up(past))
        with self.stopper.on_storage_faults():
            self.record.flush()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        with self.stopper.on_storage_faults():
            self.record.write_summary()
            if self.time:
                self.time.keep()
        if self.time and not self.stopper.reason and self.time.has_run_out(self.phase):
            self.stopper.is_out_of_time = True
        self.progress.catch_up()
        if self.stopper.stop_all() and not self.are_slots_stopped:
            self.are_slots_stopped = True
            stop_slots()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        id = trial.trial_id
        with self.stopper.on_storage_faults():
            self.record.start(id)
        self._share(id)
        self._log(lambda: self._start_run(self.record[id]))
        self.progress.begin(id)
        self.progress.show(id, "starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if failure := result.get(START_FAILURE):
            self._show_start_failure(failure)
            return
        report: TrialReport | None = result.get(REPORT)
        id, is_new = trial.trial_id, False
        exploit = self.exploits.pop(id, None)
        with self.stopper.on_storage_faults():
            is_new = report is not None and self.record.add_evaluation(id, report, exploit)
        if report is None or not is_new:
            return
        if exploit:  # only now: what a slot trains is in the record
            self._redirect(trial)
        self.has_evaluated = True
        self._share(id)
        evaluation = report.evaluation
        assert evaluation
        if self.record.baselines and not self.are_baselines_logged:
            self.are_baselines_logged = True
            self._log(lambda: self._log_files(BASELINES_FILE))
            self._describe()
        record = self.record[id]
        count = len(record.history)
        values = logged_metrics(self.record, record, count) | logged_training(evaluation)
        folder = self.record.folder(record)
        grid = folder / evaluation.grid if evaluation.grid else None
        if count == 1:
            self._log(lambda: self.logger.log_grid(id, 0, folder / grid_name(0)))
        images, step = evaluation.images, grid_step(record.budget, evaluation.images)
        self._log(lambda: self.logger.log_evaluation(id, images, values, grid, grid_step=step))
        metric = self.plan.metric
        self.progress.show(
            id,
            f"{images:,} images: {metric} {evaluation.metrics[metric]:.2f} "
            f"({evaluation.images_per_second:.1f} images/s)",
        )
        if exploit:
            tags = lineage_tags(record)
            self._log(lambda: self.logger.set_tags(id, tags))
            self.progress.show(id, exploit.reason)

    def _show_start_failure(self, failure: StartFailure) -> None:
        """Once for each reason: it is often that of every slot."""
        if failure.reason not in self.start_failures:
            self.start_failures.add(failure.reason)
            self.progress.warn(
                f"The workers of a slot could not start, and others try again: {failure.reason}"
            )

    def _redirect(self, trial: Any) -> None:
        """Lets a trial go on as the record now has it."""
        config = config_of(self.plan, self.record[trial.trial_id])
        trial.set_config(config.to_tune())  # with which it starts again if its slot is lost
        if not redirect_trial(trial.trial_id, config):
            self.stopper.report_fault(
                f"the slots did not answer when {trial.trial_id} was to continue from another trial"
            )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        report: TrialReport | None = trial.last_result.get(REPORT)
        status: Status = report.status if report else "running"
        reason = report.reason if report else ""
        if status == "running":
            images, status = self.record[trial.trial_id].images, "stopped"
            reason = self.stop_reasons.get(trial.trial_id, f"at {images:,} images")
            if self.stopper.has_ended(trial.trial_id):
                reason = OUT_OF_TIME
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
            self._end_each({"running"}, "interrupted", reason)
        elif self.time and self.stopper.is_out_of_time:
            self._end_each(UNFINISHED, "stopped", OUT_OF_TIME)
            with self.stopper.on_storage_faults():
                self.time.close(self.phase)
        with self.stopper.on_storage_faults():
            self.record.flush()
            if self.time:
                self.time.save()
        status = "interrupted" if self.stopper.reason else "completed"
        self._log(lambda: self.logger.end(status))
        if best := self.record.best:
            self._log_best(best)
        if self.record.objective.has_two_objectives:
            self._log_pareto_front()
        if ranking := self.record.final_ranking:
            values, tags = mlflow_summary(ranking)
            self._log(lambda: self.logger.log_summary(values, tags))
        self._describe()
        self._log(self._log_files)
        timeout_s = STOP_TIMEOUT_S if self.stopper.reason else TIMEOUT_S
        if left := self.log_queue.close(timeout_s):
            self.progress.warn(
                f"MLflow has been unreachable for {timeout_s:.0f} s: the last {left} entries are "
                "not logged. Nothing else is lost. When the server is back, run "
                f"{self.stopper.resume_command} to log them."
            )
        if self.study:
            self.study.close(timeout_s)
        self.progress.close()

    def _log_best(self, best: TrialRecord) -> None:
        """Points from the search's own run to that of its best trial."""
        metric, value = self.plan.metric, self.record.metric_mean(best, self.plan.metric)
        tags = {"best_trial": best.id, "best_architecture": best.architecture}

        def log() -> None:
            run = {"best_run": self.logger.run_id_of(best.id)}
            self.logger.log_summary({f"result/best_{metric}": value}, tags | run)

        self._log(log)

    def _log_pareto_front(self) -> None:
        pareto_front = self.record.pareto_front()
        for trial in self.record.ranking():
            tags = {"on_pareto_front": str(trial.id in pareto_front).lower()}
            self._log(lambda id=trial.id, tags=tags: self.logger.set_tags(id, tags))
        with self.stopper.on_storage_faults():
            draw_pareto_front(self.record)

    def _describe(self) -> None:
        self.next_description = time.monotonic() + DESCRIPTION_INTERVAL_S
        note = search_note(self.record)
        self._log(lambda: self.logger.describe(note))

    def _log_files(self, *names: str) -> None:
        """Logs files of the output folder as artifacts of the search: these, or all results."""
        output = self.plan.output
        files = [output / name for name in names or (PLAN, SUMMARY, BASELINES_FILE, REPORT_FILE)]
        if not names:
            files += [file for file in output.list() if file.name.endswith(".png")]
        for file in files:
            self.logger.log_file(file)

    def _end_each(self, statuses: Container[Status], status: Status, reason: str) -> None:
        """Ends the trials with one of these statuses: some may not have started yet."""
        for trial in self._records.values():
            if trial.status in statuses:
                self._log(lambda trial=trial: self._start_run(trial))
                self._end(trial.id, status, reason)

    def _end(self, id: str, status: Status, reason: str) -> None:
        with self.stopper.on_storage_faults():
            self.record.end(id, status, reason)
        self._remove_states(self.record[id])
        self._share(id)
        self._log(lambda: self._end_run(self.record[id]))
        if time.monotonic() >= self.next_description:
            self._describe()
        self.progress.show(id, status + (f": {reason}" if reason else ""))
        self.progress.end(id)

    def _remove_states(self, trial: TrialRecord) -> None:
        """Removes the states of a trial if nothing continues from them: each is several times as
        large as its generator."""
        is_donor = self.phase == "trials" and self.plan.scheduler == "pbt"
        if trial.is_over and not is_donor:
            # What cannot be removed takes space, and no trial needs it.
            with contextlib.suppress(OSError, StorageError):
                checkpoint.remove_all(self.record.folder(trial))

    def _share(self, id: str) -> None:
        if self.study:
            self.study.update(self.record[id])

    def _catch_up(self, trial: TrialRecord) -> None:
        self._start_run(trial)
        logged = self.logger.logged_images(trial.id, self.plan.metric)
        missing = [e for e in enumerate(trial.history, start=1) if e[1].images not in logged]
        if missing and missing[0][0] == 1 and not self.logger.has_grid(trial.id, 0):
            self.logger.log_grid(trial.id, 0, self.record.folder(trial) / grid_name(0))
        for count, evaluation in missing:
            grid = self.record.folder(trial) / grid_name(evaluation.images)
            values = logged_metrics(self.record, trial, count)
            step = grid_step(trial.budget, evaluation.images)
            self.logger.log_evaluation(trial.id, evaluation.images, values, grid, grid_step=step)
        if trial.status != "running":
            self._end_run(trial)

    def _start_run(self, trial: TrialRecord) -> None:
        # MLflow's parameters never change: those at the end are tags.
        self.logger.start_trial(trial.id, trial.architecture, trial.proposed, start_tags(trial))
        if trial.exploits:
            self.logger.set_tags(trial.id, lineage_tags(trial))

    def _end_run(self, trial: TrialRecord) -> None:
        tags = end_tags(self.record, trial)
        if trial.beats_inverted_grey is not None:
            tags["beats_inverted_grey"] = str(trial.beats_inverted_grey).lower()
            tags |= comparison_tags(compare_trial(self.record, trial))
        self.logger.end_trial(trial.id, trial.status, trial.reason, tags)

    @property
    def _records(self) -> Mapping[str, TrialRecord]:
        return self.record.retrainings if self.phase == "retrainings" else self.record.trials

    def _log(self, entry: Callable[[], None]) -> None:
        """An unreachable MLflow server costs no trial: entries are queued and retried in order."""
        self.log_queue.add(entry)


def _reason(trial: Any) -> str:
    """Why a trial of Ray Tune lost its slot, in one line."""
    error = None
    # Ray Tune's own reader looks where the file is copied to once an hour. Any error: the pickle
    # may be missing, torn, or of a class that cannot be imported here.
    with contextlib.suppress(Exception):
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    lines = str(error or "its slot was lost").strip().splitlines() or [""]
    # A traceback ends with the error; the message of a process that died begins with it.
    return lines[-1 if isinstance(error, RayTaskError) else 0][:400]
