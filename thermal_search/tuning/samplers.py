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
from optuna.samplers import GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from search_spaces import SearchSpace
from thermal_search.tuning.learned import LearnedTrial
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import SamplerName
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space import ARCHITECTURE, ConditionalSpace, suggest_value
from thermal_search.tuning.space_flags import middle
from thermal_search.tuning.summary import UNFINISHED, TrialRecord
from thermal_search.tuning.trial_study import Point, TrialStudy, evaluations_as_proposed

Told = tuple[dict[str, Any], list[float] | None]
"""The setting of a trial, with every parameter of the static space, and its objective on each axis:
None while it runs."""


def seed_of(seed: int, number: int, of: str = "") -> int:
    """The seed of one proposal."""
    digest = hashlib.sha256(f"{seed} {number}{of}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


class Sampler(ABC):
    """Proposes the settings of a search."""

    def __init__(
        self, record: SearchRecord, space: ConditionalSpace, learned: Sequence[LearnedTrial]
    ) -> None:
        """`learned`: trials of an earlier search whose numbers compare with those of this one."""
        self.record, self.plan, self.space, self.learned = record, record.plan, space, learned

    @abstractmethod
    def propose(self, number: int) -> TrialConfig:
        """The setting of trial `number`, which is not in the record yet."""


class Random(Sampler):
    """Knows nothing of the trials."""

    def propose(self, number: int) -> TrialConfig:
        sampler = RandomSampler(seed=seed_of(self.plan.seed, number))
        return self.space.suggest(optuna.create_study(sampler=sampler).ask())


class ArchitectureFirst(Sampler):
    """Chooses the architecture by all trials, then its parameters by those of that architecture.

    Parameters of different architectures have nothing to do with each other: one study of all would
    model each of them among all trials, at many times the cost.
    """

    def __init__(
        self, record: SearchRecord, space: ConditionalSpace, learned: Sequence[LearnedTrial]
    ) -> None:
        super().__init__(record, space, learned)
        self.architectures = TrialStudy(record, learned, self._place)

    def _place(self, config: TrialConfig) -> Point | None:
        if not self.space.flatten(config):
            return None
        return {ARCHITECTURE: config.architecture}, {ARCHITECTURE: self.space.architecture}

    def propose(self, number: int) -> TrialConfig:
        architecture = self.architectures.propose(
            _tpe(seed_of(self.plan.seed, number, " architecture"), self.plan.startup_trials),
            lambda trial: trial.suggest_categorical(ARCHITECTURE, self.space.architecture.choices),
        )
        return self.propose_for(str(architecture), number)

    @abstractmethod
    def propose_for(self, architecture: str, number: int) -> TrialConfig:
        """The setting of trial `number`, of a given architecture."""


class TPE(ArchitectureFirst):
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011)."""

    def __init__(
        self, record: SearchRecord, space: ConditionalSpace, learned: Sequence[LearnedTrial]
    ) -> None:
        super().__init__(record, space, learned)
        self.own = {
            name: ConditionalSpace([name], own={name: own}) for name, own in space.spaces.items()
        }
        self.studies = {
            name: TrialStudy(record, learned, own.flatten) for name, own in self.own.items()
        }

    def propose_for(self, architecture: str, number: int) -> TrialConfig:
        sampler = _tpe(seed_of(self.plan.seed, number), self.plan.startup_trials)
        return self.studies[architecture].propose(sampler, self.own[architecture].suggest)


def _tpe(seed: int, startup_trials: int) -> TPESampler:
    # Several trials run at once: `constant_liar` keeps the sampler from proposing a point twice.
    # With two objectives it is Optuna's multi-objective TPE.
    return TPESampler(
        n_startup_trials=startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,
        seed=seed,
    )


class GP(ArchitectureFirst):
    """Optuna's Gaussian process.

    It needs the same parameters in every trial: one that does not apply has its default, so that
    the model covers the conditional parameters too. Ended trials are told in the order of their
    numbers, because the record does not say which ended first.
    """

    def propose_for(self, architecture: str, number: int) -> TrialConfig:
        space = self.space.spaces[architecture]
        point = self._sample(self._told(architecture), static_space(space), number)
        return TrialConfig(architecture, active(space, point))

    def _sample(
        self, told: Sequence[Told], space: Mapping[str, BaseDistribution], number: int
    ) -> dict[str, Any]:
        """A value for every parameter of an architecture's static space."""
        sampler = GPSampler(
            seed=seed_of(self.plan.seed, number), n_startup_trials=self.plan.startup_trials
        )
        study = optuna.create_study(
            directions=[StudyDirection.MINIMIZE] * len(self.record.objective.axes), sampler=sampler
        )
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

    def _told(self, architecture: str) -> list[Told]:
        """What the sampler is told of an architecture."""
        space, worst = self.space.spaces[architecture], self._worst()
        told: list[Told] = [
            (filled(space, trial.parameters), trial.values)
            for trial in self.learned
            if trial.architecture == architecture and self.space.flatten(trial.config)
        ]
        trials = [t for t in self.record.trials.values() if t.architecture == architecture]
        for trial in sorted(trials, key=lambda trial: trial.number):
            if self.space.flatten(TrialConfig(architecture, trial.proposed)):
                told.append((filled(space, trial.proposed), self._values(trial, worst)))
        return told

    def _values(self, trial: TrialRecord, worst: list[float]) -> list[float] | None:
        if trial.status in UNFINISHED:
            return None
        # A stopped trial was behind others: its last objective says so. GPSampler ignores pruned
        # trials, so it is told as a completed one.
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
        axes = len(self.record.objective.axes)
        return [max(axis) for axis in zip(*ended, strict=True)] or [0.0] * axes


SAMPLERS: dict[SamplerName, type[Sampler]] = {"tpe": TPE, "random": Random, "gp": GP}


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
