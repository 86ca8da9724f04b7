"""What Optuna proposes: a study that is rebuilt from the record of the search."""

import hashlib
from collections.abc import Mapping, Sequence

import optuna
from optuna.samplers import TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space import ConditionalSpace
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
    would have proposed. First comes the published configuration of each architecture, then TPE.
    """

    def __init__(self, record: SearchRecord, architectures: Sequence[str], seed: int) -> None:
        self.record, self.seed = record, seed
        self.space = ConditionalSpace(architectures, record.plan.fixed_parameters)
        self.study = optuna.create_study(
            directions=[StudyDirection.MINIMIZE] * len(record.objective.axes)
        )

    def propose(self) -> tuple[int, TrialConfig]:
        """The number and the configuration of the next trial."""
        trials = self.record.trials.values()
        number = max((trial.number for trial in trials), default=-1) + 1
        tried = {trial.architecture for trial in trials}
        if untried := [name for name in self.space.spaces if name not in tried]:
            return number, self.space.published(untried[0])
        self.update(number)
        self.study.sampler = _sampler(self.seed, number)
        # What is asked stays in the study, as the running trial of this number.
        return number, self.space.suggest(self.study.ask())

    def update(self, count: int) -> None:
        """Brings the first `count` trials of the study up to date with the record."""
        by_number = {trial.number: trial for trial in self.record.trials.values()}
        for number in range(len(self.study.get_trials(deepcopy=False)), count):
            self.study.add_trial(self._begun(by_number.get(number)))
        for frozen in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            trial = by_number.get(frozen.number)
            if trial and STATES[trial.status] is not TrialState.RUNNING:
                self._tell(trial)

    def _begun(self, trial: TrialRecord | None) -> FrozenTrial:
        point = trial and self.space.flatten(TrialConfig(trial.architecture, trial.parameters))
        if not point:
            return create_trial(state=TrialState.FAIL)  # only to keep the numbers
        parameters, distributions = point
        return create_trial(
            state=TrialState.RUNNING, params=parameters, distributions=distributions
        )

    def _tell(self, trial: TrialRecord) -> None:
        state = STATES[trial.status]
        if state is TrialState.PRUNED:
            # In a study in memory, a trial's id is its number.
            running = optuna.Trial(self.study, trial.number)
            for count in range(1, len(trial.history) + 1):
                running.report(self.record.objective_after(trial, count)[0], count)
            self.study.tell(trial.number, state=state)
            return
        values = self.record.objective_values(trial)
        if trial.status != "completed" or not values:
            values = [UNUSABLE_OBJECTIVE] * len(self.record.objective.axes)
        self.study.tell(trial.number, values)


def _sampler(seed: int, number: int) -> TPESampler:
    digest = hashlib.sha256(f"{seed} {number}".encode()).digest()
    # Several trials run at once: `constant_liar` keeps the sampler from proposing a point twice.
    # With two objectives it is Optuna's multi-objective TPE.
    return TPESampler(
        multivariate=True,
        group=True,
        constant_liar=True,
        seed=int.from_bytes(digest[:4], "big"),
    )
