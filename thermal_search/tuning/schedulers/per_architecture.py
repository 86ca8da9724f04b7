"""Early stopping by one rule for each architecture.

Growing and critic-heavy architectures learn slowly at first. Compared with others from the start,
they would stop before they show anything, and the search would find the fastest starter. Networks
that grow are compared from their full size on.
"""

import contextlib
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

from ray.tune.schedulers import FIFOScheduler

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.rungs import Rungs, is_comparable, position
from thermal_search.tuning.slots.messages import REPORT, TrialReport
from thermal_search.tuning.space import OBJECTIVE
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

POSITION = "position"
"""The key of how far a trial has come, in evaluations of its own budget."""


@dataclass(frozen=True)
class Comparison:
    """Why a trial stops: what it fell behind. Lower is better."""

    value: float
    threshold: float
    value_name: str
    """What of the objective `value` is, with the word {objective} in it."""

    threshold_name: str
    """What `threshold` is of the other trials, such as "the best third of"."""

    trials: int
    """How many others it is compared with."""

    where: str = ""
    """Which of them, such as "in its bracket"; empty for all that came so far."""

    of_all: bool = False
    """Whether the others are the trials of all architectures, not only of its own."""

    def describe(self, images: int, objective: str, architecture: str) -> str:
        """The sentence for people."""
        value, threshold = distinct_texts(self.value, self.threshold)
        name = f"{self.threshold_name} the {self.trials} {architecture} trials"
        if self.of_all:
            name = f"{self.threshold_name} the {self.trials} trials of all architectures"
        if self.trials == 1:
            name = f"that of the only other {'' if self.of_all else f'{architecture} '}trial"
        where = f" {self.where}" if self.where else ""
        return (
            f"at {images:,} images its {self.value_name.format(objective=objective)} of {value} is "
            f"behind {threshold}, {name} that came so far{where}"
        )


class StoppingRule(Protocol):
    """A scheduler of Ray Tune that can say why it stops a trial."""

    last_comparison: Comparison | None
    """Of the last trial that it stopped."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None: ...
    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str: ...
    def on_trial_complete(
        self, tune_controller: Any, trial: Any, result: dict[str, Any]
    ) -> None: ...
    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None: ...


@dataclass(frozen=True)
class Competitor:
    """A trial as a rule knows it: the same before and after the search resumes."""

    trial_id: str


class PerArchitectureScheduler(FIFOScheduler):
    """One stopping rule per architecture; its resource is the share of a trial's own budget, in
    evaluations.

    The rules are filled from the record when a search resumes, so that its trials compete with
    those they would have competed with. The last evaluation of an unfinished trial is left out: the
    trial reports it again, and whether it stops there is decided as it would have been. What a rule
    has already decided about is not shown to it again.
    """

    def __init__(self, record: SearchRecord) -> None:
        super().__init__()
        self.record = record
        self.rules: dict[str, StoppingRule] = {}
        self.decided: dict[str, int] = {}
        """Images of each trial's last evaluation that its rule has seen."""

        self.stop_reasons: dict[str, str] = {}
        """By id: why the trial was stopped, in a sentence."""

        for trial in record.trials.values():
            self._fill(record, trial)

    @abstractmethod
    def create_rule(self, rungs: Rungs) -> StoppingRule:
        """The rule of one architecture, whose first trial has these rungs."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it into files that are never read

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._rule(trial).on_trial_add(tune_controller, Competitor(trial.trial_id))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if result["status"] != "running":
            return self.CONTINUE  # it ends by itself
        id, images = trial.trial_id, result["images"]
        if images <= self.decided.get(id, 0):
            return self.CONTINUE  # reported again, by a new slot
        if not is_comparable(self.record[id].budget, images):
            return self.CONTINUE
        self.decided[id] = images
        rule, result = self._rule(trial), self._with_objective(trial, result)
        decision = rule.on_trial_result(tune_controller, Competitor(id), result)
        if decision == self.STOP and rule.last_comparison:
            self.stop_reasons[id] = rule.last_comparison.describe(
                images, str(self.record.objective.axes[0]), trial.config["architecture"]
            )
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        # Trials that have diverged, failed or were interrupted do not count.
        if result.get("status") in ("running", "completed"):
            if not is_comparable(self.record[trial.trial_id].budget, result["images"]):
                return  # the time of the search is over
            result = self._with_objective(trial, result)
            competitor = Competitor(trial.trial_id)
            self._rule(trial).on_trial_complete(tune_controller, competitor, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        with contextlib.suppress(KeyError):
            self._rule(trial).on_trial_remove(tune_controller, Competitor(trial.trial_id))

    def debug_string(self) -> str:
        return f"{type(self).__name__} of " + ", ".join(self.rules)

    def _with_objective(self, trial: Any, result: dict[str, Any]) -> dict[str, Any]:
        """A result with the objective of its trial at that time."""
        report: TrialReport = result[REPORT]
        assert report.evaluation
        value, *_ = self.record.objective_with(trial.trial_id, report.evaluation)
        at = position(self.record[trial.trial_id].budget, report.evaluation.images)
        return result | {OBJECTIVE: value, POSITION: at}

    def _rule(self, trial: Any) -> StoppingRule:
        return self._rule_of(self.record[trial.trial_id])

    def _rule_of(self, trial: TrialRecord) -> StoppingRule:
        if trial.architecture not in self.rules:
            rungs = Rungs.of(trial.budget, self.record.plan.reduction)
            self.rules[trial.architecture] = self.create_rule(rungs)
        return self.rules[trial.architecture]

    def _fill(self, record: SearchRecord, past: TrialRecord) -> None:
        """Shows a rule what it would have seen of a trial."""
        # A rule reads no more of a trial than its id, and nothing of Ray Tune's controller.
        competitor, controller = Competitor(past.id), None
        rule = self._rule_of(past)
        rule.on_trial_add(controller, competitor)
        results = [
            {
                "images": evaluation.images,
                POSITION: position(past.budget, evaluation.images),
                OBJECTIVE: record.objective_after(past, count)[0],
            }
            for count, evaluation in enumerate(past.history, start=1)
        ]
        # The last one of a completed trial is no decision, and reported as its end alone.
        has_open_end = past.status in UNFINISHED or past.status == "completed"
        for result in results[:-1] if has_open_end else results:
            images = int(result["images"])
            if is_comparable(past.budget, images):
                rule.on_trial_result(controller, competitor, result)
                self.decided[past.id] = images
        is_decided = past.status in ("completed", "stopped")
        if results and is_decided and is_comparable(past.budget, past.images):
            rule.on_trial_complete(controller, competitor, results[-1])


def best_share(reduction: float) -> str:
    """1/reduction, in words."""
    words: dict[float, str] = {2: "half", 3: "third", 4: "quarter", 5: "fifth", 10: "tenth"}
    return words.get(reduction) or f"{100 / reduction:.0f} %"


def distinct_texts(value: float, threshold: float) -> tuple[str, str]:
    """Both numbers, with as many digits as it takes to see which is larger."""
    for digits in range(4, 17):
        texts = f"{value:.{digits}g}", f"{threshold:.{digits}g}"
        if texts[0] != texts[1]:
            return texts
    return str(value), str(threshold)
