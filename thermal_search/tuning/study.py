"""What Optuna proposes: a study that is rebuilt from the record of the search."""

import itertools
import json
from collections.abc import Mapping, Sequence

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from thermal_search.tuning.learned import Learned, load_learned
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.samplers import (
    PER_ARCHITECTURE,
    evaluations_as_proposed,
    joint_sampler,
)
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


class ProposalStudy:
    """Proposes the configuration of each trial by its number.

    Keeps nothing that a resumed search would need: a proposal follows from the record, the seed of
    the search and the number of the trial, so that a search that was interrupted proposes what it
    would have proposed. First come the settings of --first, what --learn-from has found best and
    the published configuration of each architecture, then what the sampler proposes.
    """

    def __init__(self, record: SearchRecord, architectures: Sequence[str], seed: int) -> None:
        self.record, self.seed = record, seed
        self.space = record.plan.search_space(architectures)
        learned = load_learned(record.plan)
        self.first = self._first(learned)
        self.tried: set[str] = set()
        self.counted = 0
        """Trials of the record that are in `tried`."""

        told = learned.trials if learned else []
        sampler = PER_ARCHITECTURE.get(record.plan.sampler)
        self.sampler = sampler(record, self.space, told) if sampler else None
        self.study = optuna.create_study(
            directions=[StudyDirection.MINIMIZE] * len(record.objective.axes)
        )
        for trial in told:
            if point := self.space.flatten(trial.config):
                parameters, distributions = point
                self.study.add_trial(
                    create_trial(
                        values=trial.values, params=parameters, distributions=distributions
                    )
                )
        self.learned = len(self.study.get_trials(deepcopy=False))
        """Trials of the study before those of this search."""

    def _first(self, learned: Learned | None) -> list[TrialConfig]:
        plan = self.record.plan
        first = [setting.config for setting in plan.first_settings]
        first += [setting.config for setting in learned.first] if learned else []
        if not plan.no_published:
            first += [self.space.published(name) for name in self.space.spaces]
        return [config for config in first if config.architecture in self.space.spaces]

    def propose(self) -> tuple[int, TrialConfig]:
        """The number and the configuration of the next trial."""
        trials = self.record.trials.values()
        number = max((trial.number for trial in trials), default=-1) + 1
        for trial in itertools.islice(trials, self.counted, None):
            self.tried.add(_key(TrialConfig(trial.architecture, trial.proposed)))
        self.counted = len(trials)
        while self.first:
            if _key(self.first[0]) not in self.tried:
                return number, self.first[0]
            self.first.pop(0)
        if self.sampler:
            return number, self.sampler.propose(number)
        self.update(number)
        self.study.sampler = joint_sampler(self.record.plan, self.seed, number)
        # What is asked stays in the study, as the running trial of this number.
        return number, self.space.suggest(self.study.ask())

    def update(self, count: int) -> None:
        """Brings the first `count` trials of the search in the study up to date with the record."""
        by_number = {trial.number: trial for trial in self.record.trials.values()}
        for number in range(len(self.study.get_trials(deepcopy=False)) - self.learned, count):
            self.study.add_trial(self._begun(by_number.get(number)))
        for frozen in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            trial = by_number.get(frozen.number - self.learned)
            if trial and STATES[trial.status] is not TrialState.RUNNING:
                self._tell(trial, frozen.number)

    def _begun(self, trial: TrialRecord | None) -> FrozenTrial:
        point = trial and self.space.flatten(TrialConfig(trial.architecture, trial.proposed))
        if not point:
            return create_trial(state=TrialState.FAIL)  # only to keep the numbers
        parameters, distributions = point
        return create_trial(
            state=TrialState.RUNNING, params=parameters, distributions=distributions
        )

    def _tell(self, trial: TrialRecord, number: int) -> None:
        """`number`: of the study's trial."""
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


def _key(config: TrialConfig) -> str:
    """Equal for equal settings."""
    values = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in config.parameters.items()
    }
    return json.dumps([config.architecture, sorted(values.items())])
