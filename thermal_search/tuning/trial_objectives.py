"""The objective of a trial: which of its evaluations count, and what they say."""

from abc import ABC, abstractmethod

from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.objective import Objective
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.summary import EvaluationRecord, TrialRecord


class TrialObjectives(ABC):
    """The part of a search's record that computes objectives."""

    plan: SearchPlan
    objective: Objective

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int], list[float]]] = {}
        """By id: how many evaluations and exploits a trial had, and its objective then. Rankings
        look at every trial after each evaluation of any."""

    @abstractmethod
    def __getitem__(self, id: str) -> TrialRecord:
        """The trial or retraining of this id."""

    def objective_values(self, trial: TrialRecord) -> list[float]:
        """A trial's objective on each axis; empty before its first evaluation."""
        count = len(trial.history), len(trial.exploits)
        known = self._known.get(trial.id)
        if known is None or known[0] != count:
            known = count, self.objective_after(trial, len(trial.history))
            self._known[trial.id] = known
        return known[1]

    def objective_after(self, trial: TrialRecord, count: int) -> list[float]:
        """A trial's objective on each axis after its first `count` evaluations."""
        recent = self._recent(trial, count)
        return self.objective.mean_of_last([e.metrics for e in recent], self.plan.average_last)

    def objective_with(self, id: str, evaluation: TrialEvaluation) -> list[float]:
        """A trial's objective after an evaluation that need not be in the record yet."""
        trial = self[id]
        before = [item for item in trial.history if item.images < evaluation.images]
        added = EvaluationRecord(images=evaluation.images, metrics=evaluation.metrics)
        with_it = trial.model_copy(update={"history": [*before, added]})
        return self.objective_after(with_it, len(with_it.history))

    def averaged_metrics(self, trial: TrialRecord) -> list[str]:
        """The metrics that all evaluations have that count for the objective."""
        recent = self._recent(trial, len(trial.history))
        return [key for key in recent[-1].metrics if all(key in item.metrics for item in recent)]

    def metric_mean(self, trial: TrialRecord, key: str) -> float:
        """The mean of a metric over the evaluations that count for the objective."""
        recent = [item.metrics[key] for item in self._recent(trial, len(trial.history))]
        return sum(recent) / len(recent)

    def _recent(self, trial: TrialRecord, count: int) -> list[EvaluationRecord]:
        """The evaluations that count for the objective after the first `count`."""
        shown = trial.history[:count]
        # Those before are of weights that the trial has given up since.
        passed = [e.images for e in trial.exploits if shown and e.images < shown[-1].images]
        own = [item for item in shown if not passed or item.images > passed[-1]]
        return own[-self.plan.average_last :]
