"""The conditional space of a search: first which architecture, then that one's own parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import TPESampler
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator
from ray.tune.search.optuna import OptunaSearch

import search_spaces

OBJECTIVE = "objective"
"""The key Ray Tune and Optuna minimize: what a trial is worth."""

SECOND_OBJECTIVE = "second_objective"
"""The other axis, where two are traded."""

FINALIST = "finalist"
"""Where a finalist's setting is in the configuration of its trial."""


class ConditionalSpace:
    """Suggests an architecture and its parameters, under names prefixed by the architecture.

    A class and not a closure, because Ray pickles the searcher with its space. The prefixes keep
    apart what only shares a name, and let Optuna's TPE model each architecture by itself.
    """

    def __init__(self, architectures: Sequence[str]) -> None:
        self.spaces = {name: search_spaces.load(name) for name in architectures}

    def __call__(self, trial: optuna.Trial) -> None:
        architecture = trial.suggest_categorical("architecture", list(self.spaces))
        space = self.spaces[architecture]
        chosen: dict[str, object] = {}
        for parameter, distribution in space.space.items():
            if space.is_active(parameter, chosen):
                name = f"{architecture}/{parameter}"
                chosen[parameter] = _suggest(trial, name, distribution)


class PruningOptunaSearch(OptunaSearch):
    """Tells Optuna of a trial that was stopped early as pruned, and not as one that has ended with
    what it was worth then: TPE ranks it after all that ended, by how far it came."""

    slots: ClassVar[int] = 1
    """Trials that may run at one time: the slots there are now. No part of what is saved, unlike
    Ray Tune's own limit, for a search may be resumed on other machines."""

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if len(self._ot_trials.keys() - self._completed_trials) >= self.slots:
            return None  # Ray Tune asks again
        return super().suggest(trial_id)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        if result and result["status"] == "running":
            # Ray Tune keeps the evaluation by which a trial was stopped to itself.
            self.on_trial_result(trial_id, result)
            result = None
        super().on_trial_complete(trial_id, result, error)


class RetrainingQueue(BasicVariantGenerator):
    """Every finalist with every seed, no more at one time than there are slots now."""

    slots: ClassVar[int] = 1
    """As PruningOptunaSearch's."""

    def next_trial(self) -> Trial | None:
        self.max_concurrent = self.slots
        return super().next_trial()


def searcher(
    architectures: Sequence[str], seed: int, *, has_two_objectives: bool = False
) -> PruningOptunaSearch:
    """TPE over the architectures, each one's published setting before anything else. For a front,
    Optuna's multi-objective TPE, which learns from ended trials alone."""
    return PruningOptunaSearch(
        space=ConditionalSpace(architectures),
        metric=[OBJECTIVE, SECOND_OBJECTIVE] if has_two_objectives else OBJECTIVE,
        mode=["min", "min"] if has_two_objectives else "min",
        points_to_evaluate=[published_point(name) for name in architectures],
        # Several trials run at once: `constant_liar` keeps the sampler from proposing the same
        # place twice. The seed belongs to the sampler; OptunaSearch's own is ignored beside one.
        sampler=TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed),
    )


def setting_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a trial of Ray Tune is to train: as the sampler chose it, or as a finalist was."""
    return config.get(FINALIST, config)


def published_point(architecture: str) -> dict[str, Any]:
    """The paper's own setting, in the flat form Optuna enqueues."""
    published = search_spaces.load(architecture).published
    return {"architecture": architecture} | {f"{architecture}/{k}": v for k, v in published.items()}


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> object:
    match distribution:
        case FloatDistribution():
            return trial.suggest_float(
                name,
                distribution.low,
                distribution.high,
                log=distribution.log,
                step=distribution.step,
            )
        case IntDistribution():
            return trial.suggest_int(
                name,
                distribution.low,
                distribution.high,
                log=distribution.log,
                step=distribution.step,
            )
        case CategoricalDistribution():
            return trial.suggest_categorical(name, distribution.choices)
        case _:
            raise TypeError(f"{name}: {type(distribution).__name__} is no distribution we know.")
