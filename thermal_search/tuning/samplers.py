"""The samplers of --sampler: what is proposed once the first settings have been tried.

A proposal is a pure function of the record, the seed of the search and the number of the trial: a
search that was interrupted proposes what it would have proposed.
"""

import hashlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from search_spaces import SearchSpace
from thermal_search.errors import SearchError
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space import ConditionalSpace, suggest_value
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

ARCHITECTURE = "architecture"


def seed_of(seed: int, number: int, of: str = "") -> int:
    """The seed of one proposal."""
    digest = hashlib.sha256(f"{seed} {number}{of}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def joint_sampler(plan: SearchPlan, number: int) -> BaseSampler:
    """Optuna's sampler of the architecture and its parameters together, for one proposal."""
    seed = seed_of(plan.seed, number)
    if plan.sampler == "random":
        return RandomSampler(seed=seed)
    return _tpe(plan, seed)


def _tpe(plan: SearchPlan, seed: int) -> TPESampler:
    # Several trials run at once: `constant_liar` keeps the sampler from proposing a point twice.
    # With two objectives it is Optuna's multi-objective TPE.
    return TPESampler(
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
        self, record: SearchRecord, space: ConditionalSpace, learned: Sequence["LearnedTrial"]
    ) -> None:
        self.record, self.plan, self.space, self.learned = record, record.plan, space, learned
        self.directions = [StudyDirection.MINIMIZE] * len(record.objective.axes)

    def propose(self, number: int) -> TrialConfig:
        """The setting of trial `number`, which is not in the record yet."""
        architecture = self._choose_architecture(number)
        space = self.space.spaces[architecture]
        points = self.sample(architecture, static_space(space), number)
        return TrialConfig(architecture, active(space, points))

    @abstractmethod
    def sample(
        self, architecture: str, space: Mapping[str, BaseDistribution], number: int
    ) -> dict[str, Any]:
        """A value for every parameter of an architecture."""

    def _choose_architecture(self, number: int) -> str:
        study = optuna.create_study(
            directions=self.directions,
            sampler=_tpe(self.plan, seed_of(self.plan.seed, number, " architecture")),
        )
        distribution = self.space.architecture
        for architecture in distribution.choices:
            for _, values in self.told(str(architecture)):
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

    def told(self, architecture: str) -> list[tuple[dict[str, Any], list[float] | None]]:
        """The settings of an architecture's trials, with every parameter of the static space, and
        their objective: None while they run."""
        space = self.space.spaces[architecture]
        told: list[tuple[dict[str, Any], list[float] | None]] = [
            (filled(space, trial.parameters), trial.values)
            for trial in self.learned
            if trial.architecture == architecture
        ]
        trials = sorted(self.record.trials.values(), key=lambda trial: trial.number)
        worst = self._worst()
        for trial in trials:
            config = TrialConfig(trial.architecture, trial.parameters)
            if trial.architecture == architecture and self.space.flatten(config):
                told.append((filled(space, trial.parameters), self._values(trial, worst)))
        return told

    def _values(self, trial: TrialRecord, worst: list[float]) -> list[float] | None:
        if trial.status in UNFINISHED:
            return None
        # A stopped trial was behind others: its last objective says so.
        has_result = trial.status in ("completed", "stopped") and bool(trial.history)
        return self.record.objective_values(trial) if has_result else worst

    def _worst(self) -> list[float]:
        """The objective of a trial without a result. A large constant, as TPE may have, would be
        an outlier beside which a Gaussian process cannot tell the others apart."""
        ended = [
            self.record.objective_values(trial)
            for trial in self.record.trials.values()
            if trial.status in ("completed", "stopped") and trial.history
        ]
        return [max(axis) for axis in zip(*ended, strict=True)] or [0.0] * len(self.directions)


class PerArchitectureGP(PerArchitectureSampler):
    """Optuna's Gaussian process."""

    def sample(
        self, architecture: str, space: Mapping[str, BaseDistribution], number: int
    ) -> dict[str, Any]:
        sampler = GPSampler(
            seed=seed_of(self.plan.seed, number), n_startup_trials=self.plan.startup_trials
        )
        study = optuna.create_study(directions=self.directions, sampler=sampler)
        for parameters, values in self.told(architecture):
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


class PerArchitectureCMAES(PerArchitectureSampler):
    """Optuna's CMA-ES.

    Its state is not in the record, so it is built anew for each proposal: the ended trials are
    asked for again with their own parameters, and told in the order of their numbers.
    """

    def sample(
        self, architecture: str, space: Mapping[str, BaseDistribution], number: int
    ) -> dict[str, Any]:
        sampler = CmaEsSampler(
            seed=self.plan.seed, n_startup_trials=self.plan.startup_trials
        )
        study = optuna.create_study(directions=self.directions, sampler=sampler)
        for parameters, values in self.told(architecture):
            if values:
                study.enqueue_trial(parameters)
                study.tell(_ask(study, space)[0], values)
        # What was drawn for the trials before must not depend on this one's number, or the other
        # way around.
        study.sampler = CmaEsSampler(
            seed=seed_of(self.plan.seed, number), n_startup_trials=self.plan.startup_trials
        )
        return _ask(study, space)[1]


def _ask(
    study: optuna.Study, space: Mapping[str, BaseDistribution]
) -> tuple[optuna.Trial, dict[str, Any]]:
    trial = study.ask()
    return trial, {name: suggest_value(trial, name, space[name]) for name in space}


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
        name: parameters.get(name, space.published.get(name, _middle(distribution)))
        for name, distribution in static_space(space).items()
    }


def active(space: SearchSpace, point: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a point of the static space that apply."""
    chosen: dict[str, Any] = {}
    for name in space.space:
        if name in point and is_active(space, name, chosen):
            chosen[name] = point[name]
    return chosen


def is_active(space: SearchSpace, name: str, chosen: Mapping[str, Any]) -> bool:
    """As `SearchSpace.is_active`; not, if the parameter that it depends on does not apply."""
    other = space.conditions.get(name, (None,))[0]
    return (other is None or other in chosen) and space.is_active(name, chosen)


def _middle(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    low, high = distribution.low, distribution.high  # pyright: ignore[reportAttributeAccessIssue]
    middle = (low * high) ** 0.5 if distribution.log else (low + high) / 2  # pyright: ignore[reportAttributeAccessIssue]
    # Onto the steps of the range, if it has any.
    step = distribution.step  # pyright: ignore[reportAttributeAccessIssue]
    value = low + round((middle - low) / step) * step if step else middle
    return type(low)(value)
