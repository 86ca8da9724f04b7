"""A study of Optuna that follows the record of the search: what a sampler knows of its trials."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from thermal_search.tuning.learned import LearnedTrial
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.summary import Status, TrialRecord

UNUSABLE_OBJECTIVE = 1e6
"""The objective of a trial without a usable result, for samplers: they avoid its neighborhood."""

STATES: Mapping[Status, TrialState] = {
    "running": TrialState.RUNNING,
    "interrupted": TrialState.RUNNING,
    "completed": TrialState.COMPLETE,
    "diverged": TrialState.COMPLETE,
    "failed": TrialState.COMPLETE,
    # TPE ranks pruned trials after all completed ones, by how far they came.
    "stopped": TrialState.PRUNED,
}

Point = tuple[dict[str, Any], dict[str, BaseDistribution]]
"""Parameters and their distributions, as Optuna has them."""

Proposed = TypeVar("Proposed")


def evaluations_as_proposed(trial: TrialRecord) -> int:
    """How many of a trial's evaluations are of the setting that was proposed: with pbt, those until
    it continued from another trial. To a sampler the setting was given up there."""
    if not trial.exploits:
        return len(trial.history)
    return sum(item.images <= trial.exploits[0].images for item in trial.history)


class TrialStudy:
    """The trials of the search, each at its point in the space of this study.

    It is rebuilt from the record: a resumed search has the study of an undisturbed one.
    """

    def __init__(
        self,
        record: SearchRecord,
        learned: Sequence[LearnedTrial],
        point_of: Callable[[TrialConfig], Point | None],
    ) -> None:
        """
        Args:
            learned: trials of an earlier search, before those of this one.
            point_of: where a setting is; None if the study is not about it.
        """
        self.record, self.point_of = record, point_of
        self.study = optuna.create_study(
            directions=[StudyDirection.MINIMIZE] * len(record.objective.axes)
        )
        for trial in learned:
            if point := point_of(trial.config):
                parameters, distributions = point
                self.study.add_trial(
                    create_trial(
                        values=trial.values, params=parameters, distributions=distributions
                    )
                )
        self.seen = 0
        """Trials of the record that have been added, or are not for this study."""

        self.running: dict[str, int] = {}
        """The study's numbers of trials that run, by their ids in the record."""

    def propose(
        self, sampler: BaseSampler, suggest: Callable[[optuna.Trial], Proposed]
    ) -> Proposed:
        """What `suggest` makes of a trial whose values `sampler` chooses."""
        self.update()
        self.study.sampler = sampler
        asked = self.study.ask()
        proposed = suggest(asked)
        # The trial of the search comes from the record, if it begins at all. Samplers ignore this.
        self.study.tell(asked, state=TrialState.FAIL)
        return proposed

    def update(self) -> None:
        """Adds the trials that have begun since, and tells those that have ended."""
        trials = self.record.trials
        begun = itertools.islice(trials.values(), self.seen, None)
        for trial in sorted(begun, key=lambda trial: trial.number):
            if point := self.point_of(TrialConfig(trial.architecture, trial.proposed)):
                self._begin(trial, point)
        self.seen = len(trials)
        for id, number in [*self.running.items()]:
            if id not in trials or STATES[trials[id].status] is not TrialState.RUNNING:
                del self.running[id]
                self._end(trials.get(id), number)

    def _begin(self, trial: TrialRecord, point: Point) -> None:
        parameters, distributions = point
        self.running[trial.id] = len(self.study.get_trials(deepcopy=False))
        self.study.add_trial(
            create_trial(state=TrialState.RUNNING, params=parameters, distributions=distributions)
        )

    def _end(self, trial: TrialRecord | None, number: int) -> None:
        """`number`: of the study's trial. None: the trial is not in the record any more."""
        if trial is None:
            self.study.tell(number, state=TrialState.FAIL)
            return
        state = STATES[trial.status]
        own = evaluations_as_proposed(trial)
        if state is TrialState.PRUNED or own < len(trial.history):
            # In a study in memory, a trial's id is its number.
            running = optuna.Trial(self.study, number)
            for count in range(1, own + 1):
                running.report(self.record.objective_after(trial, count)[0], count)
            self.study.tell(number, state=TrialState.PRUNED)
            return
        values = self.record.objective_values(trial)
        if trial.status != "completed" or not values:
            values = [UNUSABLE_OBJECTIVE] * len(self.record.objective.axes)
        self.study.tell(number, values)
