"""What Ray Tune reports, passed on: to the record, to MLflow, and to the screen."""

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ray import tune
from ray.exceptions import RayTaskError

from thermal_search.evaluation.baselines import Baselines
from thermal_search.evaluation.comparison import comparison_tags
from thermal_search.storage import Location
from thermal_search.tracking.log_queue import LogQueue
from thermal_search.tracking.runs import SearchLogger
from thermal_search.training.trial import grid_name
from thermal_search.tuning.final_ranking import finalize, mlflow_summary
from thermal_search.tuning.pareto_plot import draw_pareto_front
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.progress import Progress
from thermal_search.tuning.ranking_text import compare_trial
from thermal_search.tuning.record import Phase, SearchRecord
from thermal_search.tuning.slots.messages import REPORT, TrialReport
from thermal_search.tuning.space import OBJECTIVE, SECOND_OBJECTIVE, TrialConfig
from thermal_search.tuning.summary import RetrainingRecord, Status, TrialRecord

TIMEOUT_S = 120.0
"""How long the end of a search waits for an MLflow server that is unreachable."""


def load_or_create_record(plan: SearchPlan) -> SearchRecord:
    """The record in the plan's output folder; a new one if there is none."""
    try:
        return SearchRecord.load(plan.output)
    except FileNotFoundError:
        record = SearchRecord(
            plan.output,
            plan.metric,
            plan.features,
            objective=plan.parsed_objective,
            average_last=plan.average_last,
            protocol=plan.protocol,
        )
        record.save()
        return record


def _flatten(baselines: Baselines) -> dict[str, float]:
    return {
        f"baseline_{name}/{key}": value
        for name, metrics in baselines.items()
        for key, value in metrics.items()
    }


class SearchCallback(tune.Callback):
    """Runs in the process that drives the search.

    Ray pickles it before `setup`: only the plan is pickled, the rest is opened from the output
    folder.
    """

    def __init__(self, plan: SearchPlan, phase: Phase) -> None:
        self.plan = plan
        self.phase: Phase = phase

    def __getstate__(self) -> dict[str, Any]:
        return {"plan": self.plan, "phase": self.phase}

    def setup(self, *args: Any, **info: Any) -> None:
        plan = self.plan
        self.record = load_or_create_record(plan)
        self.logger = SearchLogger(plan.output, plan.id, plan.mlflow_params())
        self.progress = Progress(plan, self.record, self.phase)
        self.log_queue = LogQueue(self.progress.warn)
        self.is_reconciled = False
        self.are_baselines_logged = False
        if self.phase == "trials":
            self.logger.begin()  # a server that refuses does so before anything is trained
        else:
            self._log(self.logger.open)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._reconcile(trial.trial_id for trial in trials)
        config, id = TrialConfig.of(trial.config), trial.trial_id
        if config.finalist is not None and config.seed is not None:
            self.record.start_retraining(
                id,
                config.architecture,
                config.parameters,
                finalist=config.finalist,
                seed=config.seed,
            )
        else:
            self.record.start(id, config.architecture, config.parameters)
        self._log(lambda: self._start_run(self.record[id]))
        self.progress.show(f"{id[-5:]} {config.architecture} starts")

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        report: TrialReport | None = result.get(REPORT)
        id = trial.trial_id
        if report is None or not self.record.add_evaluation(id, report):
            return
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
            f"{id[-5:]} {record.architecture} {evaluation.images:,} images: "
            f"{metric} {evaluation.metrics[metric]:.2f} "
            f"({evaluation.images_per_second:.1f} images/s)"
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        report: TrialReport | None = trial.last_result.get(REPORT)
        status: Status = report.status if report else "running"
        reason = report.reason if report else ""
        if status == "running":
            record, status = self.record[trial.trial_id], "stopped"
            reason = (
                f"at {record.images:,} images it was not among the best of the "
                f"{record.architecture} trials"
            )
        self._end(trial, status, reason)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_pickled_error() if hasattr(trial, "get_pickled_error") else None
        lines = str(error or "its slot was lost").strip().splitlines() or [""]
        # A traceback ends with the error; the message of a process that died begins with it.
        line = lines[-1 if isinstance(error, RayTaskError) else 0]
        self._end(trial, "failed", line[:400])

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._finish(trial.trial_id for trial in trials)

    def resend(self) -> None:
        """Logs to MLflow what it missed of a search that has ended."""
        self.setup()
        self._finish(self._records)

    def _finish(self, ids: Iterable[str]) -> None:
        self._reconcile(ids)  # if nothing was left to run, no trial has started
        metric, best = self.plan.metric, self.record.best
        logged = (best.id, self.record.metric_mean(best, metric)) if best else None
        self._log(lambda: self.logger.end(metric, logged))
        if self.record.objective.has_two_objectives:
            self._log_pareto_front()
        retrainings = self.plan.finalists * self.plan.seeds
        if self.phase == "retrainings" and finalize(self.record, retrainings):
            ranking = self.record.final_ranking
            assert ranking
            values, tags = mlflow_summary(ranking)
            self._log(lambda: self.logger.log_summary(values, tags))
        if left := self.log_queue.close(TIMEOUT_S):
            self.progress.warn(
                f"MLflow has been unreachable for {TIMEOUT_S:.0f} s: the last {left} entries are "
                "not logged. Nothing else is lost. When the server is back, run thermal-search "
                f"search --output {shlex.quote(str(self.plan.output))} --resume to log them."
            )
        self.progress.close()

    def _log_pareto_front(self) -> None:
        pareto_front = self.record.pareto_front()
        for trial in self.record.ranking():
            tags = {"on_pareto_front": str(trial.id in pareto_front).lower()}
            self._log(lambda id=trial.id, tags=tags: self.logger.set_tags(id, tags))
        if figure := draw_pareto_front(self.record):
            self._log(lambda: self.logger.log_figure(figure))

    def _end(self, trial: Any, status: Status, reason: str) -> None:
        id = trial.trial_id
        self.record.end(id, status, reason)
        self._log(lambda: self._end_run(self.record[id]))
        self.progress.show(
            f"{id[-5:]} {self.record[id].architecture} {status}" + (f": {reason}" if reason else "")
        )

    def _reconcile(self, ids: Iterable[str]) -> None:
        """After a crash: drops trials that Ray Tune lost, and logs to MLflow what it missed."""
        if self.is_reconciled:
            return
        self.is_reconciled = True
        lost = self.record.drop_all_but(ids, self.phase)
        self._log(lambda: self.logger.delete_runs(lost))
        for trial in self._records.values():
            # A copy as it is now: later evaluations are logged by their own entries.
            past = trial.model_copy(update={"history": [*trial.history]})
            self._log(lambda past=past: self._catch_up(past))

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
        history = [evaluation.metrics for evaluation in trial.history[:count]]
        values = self.record.objective.mean_of_last(history, self.record.average_last)
        return history[-1] | dict(zip((OBJECTIVE, SECOND_OBJECTIVE), values, strict=False))

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
