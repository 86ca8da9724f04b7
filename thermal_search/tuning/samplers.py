"""The samplers of --sampler: what is proposed once the first settings have been tried.

A proposal is a pure function of the record, the seed of the search and the number of the trial: a
search that was interrupted proposes what it would have proposed.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from search_spaces import SearchSpace
from thermal_search.tuning.learned import LearnedTrial
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import Sampler
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space import ConditionalSpace, suggest_value
from thermal_search.tuning.space_flags import middle
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

ARCHITECTURE = "architecture"

Told = tuple[dict[str, Any], list[float] | None]
"""The setting of a trial, with every parameter of the static space, and its objective on each axis:
None while it runs."""


def seed_of(seed: int, number: int, of: str = "") -> int:
    """The seed of one proposal."""
    digest = hashlib.sha256(f"{seed} {number}{of}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def evaluations_as_proposed(trial: TrialRecord) -> int:
    """How many of a trial's evaluations are of the setting that was proposed: with pbt, those until
    it continued from another trial. To a sampler the setting was given up there."""
    if not trial.exploits:
        return len(trial.history)
    return sum(item.images <= trial.exploits[0].images for item in trial.history)


def joint_sampler(plan: SearchPlan, seed: int, number: int) -> BaseSampler:
    """Optuna's sampler of the architecture and its parameters together, for one proposal."""
    seed = seed_of(seed, number)
    if plan.sampler == "random":
        return RandomSampler(seed=seed)
    return _tpe(plan, seed)


class _TPE(TPESampler):
    """Sees of a running trial what the record has of it.

    Optuna's own one also sees what it had drawn for the trial and no one has used, such as
    parameters of other architectures: a study that is rebuilt from the record cannot have them.
    """

    def _get_params(self, trial: FrozenTrial, study: optuna.Study) -> dict[str, Any]:
        return trial.params


def _tpe(plan: SearchPlan, seed: int) -> TPESampler:
    # Several trials run at once: `constant_liar` keeps the sampler from proposing a point twice.
    # With two objectives it is Optuna's multi-objective TPE.
    return _TPE(
        n_startup_trials=plan.startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,
        seed=seed,
    )


class PerArchitectureSampler(ABC):
    """For samplers of Optuna that need the same parameters in every trial.

    TPE chooses the architecture, as it does in a joint study. Each architecture has a study of its
    own, in which a parameter that does not apply has its default: so the space is the same in every
    trial, and the model covers the conditional parameters too. Ended trials are told in the order
    of their numbers, because the record does not say which ended first.
    """

    def __init__(
        self, record: SearchRecord, space: ConditionalSpace, learned: Sequence[LearnedTrial]
    ) -> None:
        self.record, self.plan, self.space, self.learned = record, record.plan, space, learned
        self.directions = [StudyDirection.MINIMIZE] * len(record.objective.axes)

    def propose(self, number: int) -> TrialConfig:
        """The setting of trial `number`, which is not in the record yet."""
        told = self._told()
        architecture = self._choose_architecture(told, number)
        space = self.space.spaces[architecture]
        point = self.sample(told[architecture], static_space(space), number)
        return TrialConfig(architecture, active(space, point))

    @abstractmethod
    def sample(
        self, told: Sequence[Told], space: Mapping[str, BaseDistribution], number: int
    ) -> dict[str, Any]:
        """A value for every parameter of an architecture's static space."""

    def _choose_architecture(self, told: Mapping[str, Sequence[Told]], number: int) -> str:
        study = optuna.create_study(
            directions=self.directions,
            sampler=_tpe(self.plan, seed_of(self.plan.seed, number, " architecture")),
        )
        distribution = self.space.architecture
        for architecture in distribution.choices:
            for _, values in told[str(architecture)]:
                study.add_trial(
                    create_trial(
                        state=TrialState.COMPLETE if values else TrialState.RUNNING,
                        values=values,
                        params={ARCHITECTURE: architecture},
                        distributions={ARCHITECTURE: distribution},
                    )
                )
        choice = study.ask().suggest_categorical(ARCHITECTURE, distribution.choices)
        return str(choice)

    def _told(self) -> dict[str, list[Told]]:
        """What a sampler is told, by architecture."""
        spaces, worst = self.space.spaces, self._worst()
        told: dict[str, list[Told]] = {name: [] for name in spaces}
        for trial in self.learned:
            if self.space.flatten(trial.config):
                point = filled(spaces[trial.architecture], trial.parameters)
                told[trial.architecture].append((point, trial.values))
        for trial in sorted(self.record.trials.values(), key=lambda trial: trial.number):
            if self.space.flatten(TrialConfig(trial.architecture, trial.proposed)):
                point = filled(spaces[trial.architecture], trial.proposed)
                told[trial.architecture].append((point, self._values(trial, worst)))
        return told

    def _values(self, trial: TrialRecord, worst: list[float]) -> list[float] | None:
        if trial.status in UNFINISHED:
            return None
        # A stopped trial was behind others: its last objective says so.
        has_result = trial.status in ("completed", "stopped") and bool(trial.history)
        if not has_result:
            return worst
        return self.record.objective_after(trial, evaluations_as_proposed(trial))

    def _worst(self) -> list[float]:
        """The objective of a trial without a result. A large constant, as TPE may have, would be
        an outlier beside which a Gaussian process cannot tell the others apart."""
        ended = [
            self.record.objective_values(trial)
            for trial in self.record.trials.values()
            if trial.status in ("completed", "stopped") and trial.history
        ]
        ended += [trial.values for trial in self.learned]
        return [max(axis) for axis in zip(*ended, strict=True)] or [0.0] * len(self.directions)


class PerArchitectureGP(PerArchitectureSampler):
    """Optuna's Gaussian process."""

    def sample(
        self, told: Sequence[Told], space: Mapping[str, BaseDistribution], number: int
    ) -> dict[str, Any]:
        sampler = GPSampler(
            seed=seed_of(self.plan.seed, number), n_startup_trials=self.plan.startup_trials
        )
        study = optuna.create_study(directions=self.directions, sampler=sampler)
        for parameters, values in told:
            study.add_trial(
                create_trial(
                    state=TrialState.COMPLETE if values else TrialState.RUNNING,
                    values=values,
                    params=parameters,
                    distributions={**space},
                )
            )
        # An empty study has no space yet: the sampler draws at random.
        trial = study.ask()
        return {name: suggest_value(trial, name, space[name]) for name in space}


PER_ARCHITECTURE: dict[Sampler, type[PerArchitectureSampler]] = {
    "gp": PerArchitectureGP,
}
"""The samplers that do not propose the architecture and its parameters together."""


def static_space(space: SearchSpace) -> dict[str, BaseDistribution]:
    """Every parameter that can apply, whatever the others are."""
    return {
        name: distribution
        for name, distribution in space.space.items()
        if name not in space.conditions or _can_apply(space, name)
    }


def _can_apply(space: SearchSpace, name: str) -> bool:
    other, values = space.conditions[name]
    distribution = space.space[other]
    possible = not isinstance(distribution, CategoricalDistribution) or bool(
        set(distribution.choices) & set(values)
    )
    return possible and (other not in space.conditions or _can_apply(space, other))


def filled(space: SearchSpace, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every parameter of the static space: its own, the published one, or the middle of
    the range."""
    return {
        name: parameters.get(name, space.published.get(name, middle(distribution)))
        for name, distribution in static_space(space).items()
    }


def active(space: SearchSpace, point: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a point of the static space that apply."""
    chosen: dict[str, Any] = {}
    for name in space.space:
        if name in point and space.is_active(name, chosen):
            chosen[name] = point[name]
    return chosen
