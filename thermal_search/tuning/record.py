"""The record of a search: every trial, written to OUTPUT/summary.json at each change."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from thermal_search.checkpoint import GENERATOR
from thermal_search.evaluation.baselines import TRIVIAL_BASELINE, Baselines
from thermal_search.storage import Location
from thermal_search.tuning.objective import Objective, pareto_front, parse_objective
from thermal_search.tuning.slots.messages import TrialReport
from thermal_search.tuning.summary import (
    FILE,
    EvaluationRecord,
    FinalRanking,
    RetrainingRecord,
    Status,
    Summary,
    TrialRecord,
)

Phase = Literal["trials", "retrainings"]
"""What a run of Ray Tune trains: the trials of the search, or its finalists with further seeds.
Also the name of the folder that holds them."""


class SearchRecord:
    """Every trial of a search. Each change is written before the search continues."""

    def __init__(
        self,
        output: Location | Path,
        metric: str,
        features: str,
        *,
        objective: Objective,
        average_last: int,
        protocol: Mapping[str, str | int],
    ) -> None:
        self.output, self.metric, self.features = Location.of(output), metric, features
        self.objective, self.average_last = objective, average_last
        self.protocol = dict(protocol)
        self.baselines: Baselines = {}
        self.test_baselines: Baselines = {}
        self.trials: dict[str, TrialRecord] = {}
        self.retrainings: dict[str, RetrainingRecord] = {}
        self.final_ranking: FinalRanking | None = None

    @classmethod
    def load(cls, output: Location | Path) -> "SearchRecord":
        """Reads OUTPUT/summary.json.

        Raises FileNotFoundError if there is none, SearchError if it is not a summary.
        """
        output = Location.of(output)
        summary = Summary.read(output / FILE)
        record = cls(
            output,
            summary.metric,
            summary.features,
            objective=parse_objective(summary.objective, summary.features),
            average_last=summary.average_last,
            protocol=summary.protocol,
        )
        record.baselines, record.test_baselines = summary.baselines, summary.test_baselines
        record.trials = {trial.id: trial for trial in summary.trials}
        record.retrainings = {retraining.id: retraining for retraining in summary.retrainings}
        record.final_ranking = summary.final_ranking
        return record

    def save(self) -> None:
        best = self.best
        Summary(
            metric=self.metric,
            features=self.features,
            objective=self.objective.text,
            average_last=self.average_last,
            protocol=self.protocol,
            baselines=self.baselines,
            test_baselines=self.test_baselines,
            trials=list(self.trials.values()),
            best=best.id if best else None,
            pareto_front=self.pareto_front(),
            retrainings=list(self.retrainings.values()),
            final_ranking=self.final_ranking,
        ).write(self.output / FILE)

    @property
    def best(self) -> TrialRecord | None:
        """The first of the ranking; with two objectives, the lowest on the first."""
        return next(iter(self.ranking()), None)

    def ranking(self) -> list[TrialRecord]:
        """The evaluated trials, best first: those that completed, then the others, whose few
        evaluations may be lucky."""
        evaluated = [trial for trial in self.trials.values() if trial.history]
        return sorted(
            evaluated,
            key=lambda trial: (trial.status != "completed", self.objective_values(trial)),
        )

    def pareto_front(self) -> list[str]:
        """The trials that no other dominates, if there are two objectives; else none. Only
        completed trials compete, once there are any."""
        if not self.objective.has_two_objectives:
            return []
        ranking = self.ranking()
        completed = [trial for trial in ranking if trial.status == "completed"]
        competing = completed or ranking
        return pareto_front({trial.id: self.objective_values(trial) for trial in competing})

    def objective_values(self, trial: TrialRecord) -> list[float]:
        """A trial's objective on each axis; empty before its first evaluation."""
        history = [evaluation.metrics for evaluation in trial.history]
        return self.objective.mean_of_last(history, self.average_last)

    def metric_mean(self, trial: TrialRecord, key: str) -> float:
        """The mean of a metric over the evaluations that count for the objective."""
        recent = [item.metrics[key] for item in trial.history[-self.average_last :]]
        return sum(recent) / len(recent)

    def start(self, id: str, architecture: str, parameters: Mapping[str, Any]) -> None:
        """A trial begins, or resumes with what it has."""
        new = TrialRecord(id=id, architecture=architecture, parameters=dict(parameters))
        self._start(self.trials.setdefault(id, new))

    def start_retraining(
        self,
        id: str,
        architecture: str,
        parameters: Mapping[str, Any],
        *,
        finalist: str,
        seed: int,
    ) -> None:
        """A finalist's retraining begins, or resumes with what it has."""
        new = RetrainingRecord(
            id=id,
            architecture=architecture,
            parameters=dict(parameters),
            finalist=finalist,
            seed=seed,
        )
        self._start(self.retrainings.setdefault(id, new))

    def _start(self, trial: TrialRecord) -> None:
        trial.status, trial.reason = "running", ""
        self.save()

    def add_evaluation(self, id: str, report: TrialReport) -> bool:
        """Adds an evaluation; False if it is there already (reported again after a crash)."""
        trial, evaluation = self[id], report.evaluation
        if evaluation is None or evaluation.images <= trial.images:
            return False
        trial.history.append(EvaluationRecord(images=evaluation.images, metrics=evaluation.metrics))
        trial.images, trial.seconds = evaluation.images, evaluation.seconds
        phase: Phase = "retrainings" if isinstance(trial, RetrainingRecord) else "trials"
        trial.checkpoint = f"{phase}/{id}/{GENERATOR}"
        trial.objective = self.objective.by_axis(self.objective_values(trial))
        self.baselines = report.baselines or self.baselines
        if isinstance(trial, RetrainingRecord) and report.test_metrics:
            trial.test_metrics, self.test_baselines = report.test_metrics, report.test_baselines
        for known in (*self.trials.values(), *self.retrainings.values()):
            known.beats_inverted_grey = self._beats_inverted_grey(known)
        self.save()
        return True

    def end(self, id: str, status: Status, reason: str) -> None:
        self[id].status, self[id].reason = status, reason
        self.save()

    def drop_all_but(self, ids: Iterable[str], phase: Phase) -> list[str]:
        """Drops trials that Ray Tune lost in a crash before they were evaluated; returns them."""
        known = set(ids)
        records = self.trials if phase == "trials" else self.retrainings
        lost = [id for id in records if id not in known]
        for id in lost:
            del records[id]
        if lost:
            self.save()
        return lost

    def __getitem__(self, id: str) -> TrialRecord:
        return self.retrainings[id] if id in self.retrainings else self.trials[id]

    def _beats_inverted_grey(self, trial: TrialRecord) -> bool | None:
        if not trial.history or TRIVIAL_BASELINE not in self.baselines:
            return None
        baseline = self.objective.values(self.baselines[TRIVIAL_BASELINE])
        return self.objective_values(trial)[0] < baseline[0]
