"""The record of a search: every trial in a file of its own, the only state that a search resumes
from.

    OUTPUT/search.json                the plan
    OUTPUT/baselines.json             metrics of what needs no training
    OUTPUT/trials/ID/trial.json       parameters, every evaluation, status and reason of a trial
    OUTPUT/retrainings/ID/trial.json  the same of a finalist's retraining
    OUTPUT/time.json                  the time spent by a search with --hours
    OUTPUT/summary.json               all of it in one file, for programs; never read again
"""

import contextlib
import errno
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from thermal_search.checkpoint import GENERATOR
from thermal_search.documents import backup_of
from thermal_search.errors import SearchError
from thermal_search.evaluation.baselines import TRIVIAL_BASELINE, Baselines
from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialBudget
from thermal_search.tuning.budgets import equal_images
from thermal_search.tuning.exploits import ExploitRecord, redo
from thermal_search.tuning.final_ranking import rank_finalists
from thermal_search.tuning.objective import pareto_front
from thermal_search.tuning.ownership import gone
from thermal_search.tuning.plan import FILE as PLAN_FILE
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record_faults import (
    retraining_id,
    trial_id,
)
from thermal_search.tuning.record_files import (
    BASELINES_FILE,
    TIME_FILE,
    TRIAL_FILE,
    Phase,
    read_baselines,
    read_trials,
)
from thermal_search.tuning.slots.messages import TrialConfig, TrialReport
from thermal_search.tuning.summary import (
    FILE,
    UNFINISHED,
    BaselinesFile,
    EvaluationRecord,
    FinalRanking,
    RetrainingFile,
    RetrainingRecord,
    StartRecord,
    Status,
    Summary,
    TimeFile,
    TrialFile,
    TrialRecord,
)
from thermal_search.tuning.trial_objectives import TrialObjectives

SUMMARY_INTERVAL_S = 2.0
"""Least time between two versions of summary.json."""

SUMMARY_SHARE = 0.05
"""Largest share of the time that goes into writing it: of thousands of trials it is large."""


class SearchRecord(TrialObjectives):
    """Every trial of a search. Each change is in the trial's file before the search continues."""

    def __init__(self, plan: SearchPlan) -> None:
        super().__init__()
        self.plan = plan
        self.output, self.metric = plan.output, plan.metric
        self.objective = plan.parsed_objective
        self.baselines: Baselines = {}
        self.test_baselines: Baselines = {}
        self.trials: dict[str, TrialRecord] = {}
        self.retrainings: dict[str, RetrainingRecord] = {}
        self.time = TimeFile(seconds=0.0)
        self.is_summary_current = False
        self.next_summary = 0.0

    @classmethod
    def load(cls, output: Location | Path) -> "SearchRecord":
        """The record of the search in an output folder; SearchError if there is none, or if a file
        and its backup are damaged."""
        return cls.of(SearchPlan.load(output))

    @classmethod
    def of(cls, plan: SearchPlan) -> "SearchRecord":
        """The record in a plan's output folder; empty if nothing has been trained."""
        record = cls(plan)
        baselines = read_baselines(record.output, record.objective)
        record.baselines, record.test_baselines = baselines.validation, baselines.test
        with contextlib.suppress(FileNotFoundError):
            record.time = TimeFile.read_or_backup(record.output / TIME_FILE)
        for trial in read_trials(record.output, "trials", record.objective, record.metric):
            record.trials[trial.id] = trial
        for trial in read_trials(record.output, "retrainings", record.objective, record.metric):
            if isinstance(trial, RetrainingRecord):
                record.retrainings[trial.id] = trial
        return record

    @property
    def summary(self) -> Summary:
        """All of it as programs read it."""
        best, plan = self.best, self.plan
        return Summary(
            metric=self.metric,
            features=plan.features,
            objective=self.objective.text,
            average_last=plan.average_last,
            protocol=plan.protocol,
            baselines=self.baselines,
            test_baselines=self.test_baselines,
            trials=list(self.trials.values()),
            best=best.id if best else None,
            pareto_front=self.pareto_front(),
            lineages={t.id: t.lineage for t in self.trials.values() if t.exploits},
            retrainings=sorted(
                self.retrainings.values(), key=lambda trial: (trial.number, trial.id)
            ),
            final_ranking=self.final_ranking,
        )

    def write_summary(self) -> None:
        """Writes summary.json if anything has changed, at most every few seconds."""
        if time.monotonic() >= self.next_summary:
            self.flush()

    def flush(self) -> None:
        """Writes summary.json now, if anything has changed."""
        if self.is_summary_current:
            return
        began = time.monotonic()
        with self._in_output():
            self.summary.write(self.output / FILE, make_folder=False)
        self.is_summary_current = True
        ended = time.monotonic()
        self.next_summary = ended + max(SUMMARY_INTERVAL_S, (ended - began) / SUMMARY_SHARE)

    @property
    def best(self) -> TrialRecord | None:
        """The first of the ranking; with two objectives, the lowest on the first."""
        return min(self._evaluated(), key=self._rank, default=None)

    def ranking(self) -> list[TrialRecord]:
        """The evaluated trials, best first: those that completed, then the others, whose few
        evaluations may be lucky."""
        return sorted(self._evaluated(), key=self._rank)

    def _evaluated(self) -> list[TrialRecord]:
        return [trial for trial in self.trials.values() if trial.history]

    def _rank(self, trial: TrialRecord) -> tuple[bool, list[float]]:
        return trial.status != "completed", self.objective_values(trial)

    def pareto_front(self) -> list[str]:
        """The trials that no other dominates, if there are two objectives; else none. Only
        completed trials compete, once there are any."""
        if not self.objective.has_two_objectives:
            return []
        ranking = self.ranking()
        completed = [trial for trial in ranking if trial.status == "completed"]
        competing = completed or ranking
        return pareto_front({trial.id: self.objective_values(trial) for trial in competing})

    @property
    def has_every_trial(self) -> bool:
        """Whether every trial of the plan has ended, or every one that there was time for."""
        ended = [trial for trial in self.trials.values() if trial.status not in UNFINISHED]
        planned = 0 if self.time.are_trials_over else self.plan.trials
        return len(ended) >= max(planned, len(self.trials))

    def finalists(self) -> list[TrialRecord]:
        """The best of the completed trials, as only they compare with a full training; none until
        every trial of the search has ended."""
        if not self.has_every_trial:
            return []
        completed = [trial for trial in self.ranking() if trial.status == "completed"]
        return completed[: self.plan.finalists]

    @property
    def has_every_retraining(self) -> bool:
        """Whether every retraining of the finalists has ended, if there are any, or every one that
        there was time for."""
        if self.time.are_retrainings_over:
            return True
        wanted = (
            self.retrainings.get(retraining_id(finalist.id, seed))
            for finalist in self.finalists()
            for seed in self.retraining_seeds()
        )
        return all(retraining and retraining.status not in UNFINISHED for retraining in wanted)

    @property
    def final_ranking(self) -> FinalRanking | None:
        """None until every retraining of the finalists has ended."""
        if not self.finalists() or not self.has_every_retraining:
            return None
        ended = [r for r in self.retrainings.values() if r.status not in UNFINISHED]
        return rank_finalists(ended, self.objective, self.objective_values, self.test_baselines)

    def require_results(self) -> None:
        """Raises SearchError if machines have interrupted trials, or no trial has a result: for
        scripts that go on with the best generator."""
        trials = [*self.trials.values(), *self.retrainings.values()]
        if interrupted := [trial for trial in trials if trial.status == "interrupted"]:
            raise SearchError(
                f"{len(interrupted)} trials have not ended, the first one because "
                f"{interrupted[0].reason}: remove the cause and pass --resume to continue them."
            )
        if trials and all(trial.is_out_of_time and not trial.history for trial in trials):
            raise SearchError(
                "No trial reached its first evaluation within --hours, so there is no generator to "
                "export: pass --resume with more --hours, or start a search with smaller budgets."
            )
        if trials and not any(t.status in ("completed", "stopped") for t in trials):
            raise SearchError(
                f"All {len(trials)} trials have failed, the first one because of "
                f"{trials[0].reason}: there is no generator to export."
            )

    def retraining_seeds(self) -> Sequence[int]:
        """The seeds that each finalist is trained again with."""
        return [self.plan.seed + further for further in range(1, self.plan.seeds + 1)]

    def add(self, number: int, config: TrialConfig) -> TrialRecord:
        """A new trial of the search."""
        id = trial_id(number)
        trial = TrialRecord(
            id=id,
            number=number,
            architecture=config.architecture,
            parameters=dict(config.parameters),
            budget=config.budget or self._equal_images(config),
        )
        self.trials[id] = trial
        self._save(trial)
        return trial

    def _equal_images(self, config: TrialConfig) -> TrialBudget:
        plan = self.plan
        assert plan.images, "only a search with equal images has the same budget for every trial"
        return equal_images(config, plan.images, plan.evaluate_every)

    def has_retraining(self, finalist: TrialRecord, seed: int) -> bool:
        """Whether a finalist's retraining with this seed has begun."""
        return retraining_id(finalist.id, seed) in self.retrainings

    def add_retraining(self, finalist: TrialRecord, seed: int) -> RetrainingRecord:
        """A new retraining of a finalist with another seed."""
        trial = RetrainingRecord(
            id=retraining_id(finalist.id, seed),
            number=finalist.number,
            architecture=finalist.architecture,
            parameters=finalist.parameters,
            budget=finalist.budget,
            finalist=finalist.id,
            seed=seed,
            retrained=finalist.schedule if finalist.exploits else [],
        )
        self.retrainings[trial.id] = trial
        self._save(trial)
        return trial

    def start(self, id: str) -> None:
        """A trial begins, or resumes with what it has."""
        trial = self[id]
        if trial.status != "running":
            trial.status, trial.reason = "running", ""
            self._save(trial)

    def add_evaluation(
        self, id: str, report: TrialReport, exploit: ExploitRecord | None = None
    ) -> bool:
        """False if there is no new one, or it is there already (reported again after a crash).

        `exploit`: what was decided by this evaluation, which is in the record with it or not at
        all.
        """
        trial, evaluation = self[id], report.evaluation
        if evaluation is None or evaluation.images <= trial.images:
            return False
        self._keep_baselines(report)
        trial.history.append(
            EvaluationRecord(
                images=evaluation.images, metrics=evaluation.metrics, seconds=evaluation.seconds
            )
        )
        trial.images, trial.seconds = evaluation.images, evaluation.seconds
        trial.checkpoint = checkpoint_of(trial)
        trial.objective = self.objective.by_axis(self.objective_values(trial))
        trial.beats_inverted_grey = self._beats_inverted_grey(trial)
        if report.start:
            taken_over, left_out = report.start
            trial.start = StartRecord(taken_over=taken_over, left_out=left_out)
        if isinstance(trial, RetrainingRecord) and report.test_metrics:
            trial.test_metrics = report.test_metrics
        if exploit:
            trial.parameters = redo(trial.parameters, exploit)
            trial.exploits.append(exploit)
        self._save(trial)
        return True

    def save_time(self, time: TimeFile) -> None:
        self.time = time
        with self._in_output():
            time.write_with_backup(self.output / TIME_FILE, make_folder=False)

    def end(self, id: str, status: Status, reason: str) -> None:
        trial = self[id]
        trial.status, trial.reason = status, reason
        self._save(trial)

    def __getitem__(self, id: str) -> TrialRecord:
        return self.retrainings[id] if id in self.retrainings else self.trials[id]

    def folder(self, trial: TrialRecord) -> Location:
        """The folder of a trial or retraining: its file, its states and its image grids."""
        return self.output / _phase(trial) / trial.id

    def _save(self, trial: TrialRecord) -> None:
        self.is_summary_current = False
        file = RetrainingFile(trial=trial) if isinstance(trial, RetrainingRecord) else None
        folder = self.folder(trial)
        with self._in_output():
            folder.parent.make_subfolder()
            folder.make_subfolder()
            (file or TrialFile(trial=trial)).write_with_backup(
                folder / TRIAL_FILE, make_folder=False
            )

    @contextlib.contextmanager
    def _in_output(self) -> Generator[None]:
        """A context of writes to the output folder. OSError if that is gone: renamed, or its disk
        unmounted, and none of them may make another one in its place."""
        self._require_output()
        try:
            yield
        except FileNotFoundError:
            self._require_output()
            raise

    def _require_output(self) -> None:
        plan = self.output / PLAN_FILE
        if self.output.local and not plan.exists() and not backup_of(plan).exists():
            raise OSError(errno.ENOENT, gone(self.output))

    def _keep_baselines(self, report: TrialReport) -> None:
        baselines = report.baselines or self.baselines
        test_baselines = report.test_baselines or self.test_baselines
        if (baselines, test_baselines) != (self.baselines, self.test_baselines):
            self.baselines, self.test_baselines = baselines, test_baselines
            file = BaselinesFile(validation=baselines, test=test_baselines)
            with self._in_output():
                file.write_with_backup(self.output / BASELINES_FILE, make_folder=False)

    def _beats_inverted_grey(self, trial: TrialRecord) -> bool | None:
        if TRIVIAL_BASELINE not in self.baselines:
            return None
        baseline = self.objective.values(self.baselines[TRIVIAL_BASELINE])
        return self.objective_values(trial)[0] < baseline[0]


def checkpoint_of(trial: TrialRecord) -> str:
    """The generator of a trial's last evaluation, relative to the output."""
    return f"{_phase(trial)}/{trial.id}/{GENERATOR}"


def _phase(trial: TrialRecord) -> Phase:
    return "retrainings" if isinstance(trial, RetrainingRecord) else "trials"
