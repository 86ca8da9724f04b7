"""The space of a search: first the architecture, then the parameters of that one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

import search_spaces
from search_spaces import SearchSpace
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space_flags import Fixed, Narrowed, contains, middle, nearest_value

ARCHITECTURE = "architecture"
"""The parameter that says which architecture a trial has."""

OBJECTIVE = "objective"
"""The key that Ray Tune and Optuna minimize: the mean over a trial's last evaluations."""

SECOND_OBJECTIVE = "second_objective"
"""The other axis, if there are two objectives."""


class ConditionalSpace:
    """The architectures with their parameters, in the flat form of Optuna.

    Names of parameters are prefixed by their architecture: so equal names of different
    architectures stay apart, and Optuna's TPE models each by itself.
    """

    def __init__(
        self,
        architectures: Sequence[str],
        fixed: Fixed | None = None,
        narrowed: Narrowed | None = None,
        own: Mapping[str, SearchSpace] | None = None,
    ) -> None:
        """
        Args:
            fixed: what --fix says.
            narrowed: what --narrow says.
            own: search spaces other than those of `search_spaces`, by architecture.
        """
        spaces = load_spaces(architectures, own)
        self.spaces = {
            name: _restrict(space, (fixed or {}).get(name, {}), (narrowed or {}).get(name, {}))
            for name, space in spaces.items()
        }
        self.architecture = CategoricalDistribution(list(self.spaces))

    def suggest(self, trial: optuna.Trial) -> TrialConfig:
        """An architecture and its parameters as the sampler proposes them."""
        architecture: str = trial.suggest_categorical(ARCHITECTURE, self.architecture.choices)  # pyright: ignore[reportAssignmentType]
        space = self.spaces[architecture]
        chosen: dict[str, object] = {}
        for parameter, distribution in space.space.items():
            if space.is_active(parameter, chosen):
                name = f"{architecture}/{parameter}"
                chosen[parameter] = suggest_value(trial, name, distribution)
        return TrialConfig(architecture, chosen)

    def published(self, architecture: str) -> TrialConfig:
        """The paper's own parameters, but for those that are fixed."""
        return TrialConfig(architecture, self.spaces[architecture].published)

    def flatten(
        self, config: TrialConfig
    ) -> tuple[dict[str, Any], dict[str, BaseDistribution]] | None:
        """Parameters and distributions as Optuna has them; None if the space lacks the point, as
        after a change of its ranges."""
        space = self.spaces.get(config.architecture)
        if space is None:
            return None
        values: dict[str, Any] = {ARCHITECTURE: config.architecture}
        distributions: dict[str, BaseDistribution] = {ARCHITECTURE: self.architecture}
        for parameter, value in config.parameters.items():
            distribution = space.space.get(parameter)
            if distribution is None or not contains(distribution, value):
                return None
            values[f"{config.architecture}/{parameter}"] = value
            distributions[f"{config.architecture}/{parameter}"] = distribution
        return values, distributions


def load_spaces(
    architectures: Sequence[str], own: Mapping[str, SearchSpace] | None = None
) -> dict[str, SearchSpace]:
    """The search space of each architecture: one's own, or that of `search_spaces`."""
    own = own or {}
    return {name: own[name] if name in own else search_spaces.load(name) for name in architectures}


def _restrict(
    space: SearchSpace, fixed: Mapping[str, Any], narrowed: Mapping[str, BaseDistribution]
) -> SearchSpace:
    """A search space in which some parameters have one value, or fewer values. The published point
    moves into it."""
    distributions = {**space.space, **narrowed}
    distributions |= {name: CategoricalDistribution([value]) for name, value in fixed.items()}
    point = {
        name: nearest_value(distributions[name], value) if name in distributions else value
        for name, value in {**space.published, **fixed}.items()
    }
    published = {name: value for name, value in point.items() if space.is_active(name, point)}
    # A parameter that is not published would have its default, which may be out of the range.
    for name in narrowed:
        if name not in published and space.is_active(name, published):
            published[name] = middle(distributions[name])
    return replace(space, space=distributions, published=published)


def suggest_value(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> object:
    """A value of a distribution as the sampler of the trial's study proposes it."""
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
