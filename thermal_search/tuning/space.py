"""The space of a search: first the architecture, then the parameters of that one."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

import search_spaces
from thermal_search.tuning.slots.messages import TrialConfig

OBJECTIVE = "objective"
"""The key that Ray Tune and Optuna minimize: the mean over a trial's last evaluations."""

SECOND_OBJECTIVE = "second_objective"
"""The other axis, if there are two objectives."""


class ConditionalSpace:
    """The architectures with their parameters, in the flat form of Optuna.

    Names of parameters are prefixed by their architecture: so equal names of different
    architectures stay apart, and Optuna's TPE models each by itself.
    """

    def __init__(self, architectures: Sequence[str]) -> None:
        self.spaces = {name: search_spaces.load(name) for name in architectures}
        self.architecture = CategoricalDistribution(list(self.spaces))

    def suggest(self, trial: optuna.Trial) -> TrialConfig:
        """An architecture and its parameters as the sampler proposes them."""
        architecture: str = trial.suggest_categorical("architecture", self.architecture.choices)  # pyright: ignore[reportAssignmentType]
        space = self.spaces[architecture]
        chosen: dict[str, object] = {}
        for parameter, distribution in space.space.items():
            if space.is_active(parameter, chosen):
                name = f"{architecture}/{parameter}"
                chosen[parameter] = _suggest(trial, name, distribution)
        return TrialConfig(architecture, chosen)

    def published(self, architecture: str) -> TrialConfig:
        """The paper's own parameters."""
        return TrialConfig(architecture, self.spaces[architecture].published)

    def flatten(
        self, config: TrialConfig
    ) -> tuple[dict[str, Any], dict[str, BaseDistribution]] | None:
        """Parameters and distributions as Optuna has them; None if the space lacks the point, as
        after a change of its ranges."""
        space = self.spaces.get(config.architecture)
        if space is None:
            return None
        values: dict[str, Any] = {"architecture": config.architecture}
        distributions: dict[str, BaseDistribution] = {"architecture": self.architecture}
        for parameter, value in config.parameters.items():
            distribution = space.space.get(parameter)
            if distribution is None or not _contains(distribution, value):
                return None
            values[f"{config.architecture}/{parameter}"] = value
            distributions[f"{config.architecture}/{parameter}"] = distribution
        return values, distributions


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))  # pyright: ignore[reportPrivateUsage]
    except ValueError:
        return False


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
            raise TypeError(f"{name}: unknown distribution {type(distribution).__name__}.")
