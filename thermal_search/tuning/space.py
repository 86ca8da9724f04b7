"""The space of a search: first the architecture, then the parameters of that one."""

import difflib
import math
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
from thermal_search.errors import SettingsError, nearest
from thermal_search.tuning.slots.messages import TrialConfig

Fixed = dict[str, dict[str, Any]]
"""Values that a search does not vary, by architecture and parameter."""

OBJECTIVE = "objective"
"""The key that Ray Tune and Optuna minimize: the mean over a trial's last evaluations."""

SECOND_OBJECTIVE = "second_objective"
"""The other axis, if there are two objectives."""


class ConditionalSpace:
    """The architectures with their parameters, in the flat form of Optuna.

    Names of parameters are prefixed by their architecture: so equal names of different
    architectures stay apart, and Optuna's TPE models each by itself.
    """

    def __init__(self, architectures: Sequence[str], fixed: Fixed | None = None) -> None:
        self.spaces = {
            name: _fix(search_spaces.load(name), (fixed or {}).get(name, {}))
            for name in architectures
        }
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
        values: dict[str, Any] = {"architecture": config.architecture}
        distributions: dict[str, BaseDistribution] = {"architecture": self.architecture}
        for parameter, value in config.parameters.items():
            distribution = space.space.get(parameter)
            if distribution is None or not _contains(distribution, value):
                return None
            values[f"{config.architecture}/{parameter}"] = value
            distributions[f"{config.architecture}/{parameter}"] = distribution
        return values, distributions


def _fix(space: SearchSpace, fixed: Mapping[str, Any]) -> SearchSpace:
    """A search space in which some parameters have one value."""
    distributions = {
        name: CategoricalDistribution([fixed[name]]) if name in fixed else distribution
        for name, distribution in space.space.items()
    }
    point = {**space.published, **fixed}
    published = {name: value for name, value in point.items() if space.is_active(name, point)}
    return replace(space, space=distributions, published=published)


def parse_fixed(texts: Sequence[str], architectures: Sequence[str]) -> Fixed:
    """The values of --fix by architecture and parameter; SettingsError if one is not in its
    search space."""
    fixed: Fixed = {}
    for text in texts:
        name, _, value = text.partition("=")
        architecture, _, parameter = name.partition(".")
        if architecture not in architectures:
            if near := difflib.get_close_matches(architecture, architectures, n=1):
                raise SettingsError(f"--fix {text!r}: did you mean {near[0]}.{parameter}?")
            raise SettingsError(
                f"--fix must name a parameter of {', '.join(architectures)}, as in "
                f"pix2pix.batch_size=8, but is {text!r}."
            )
        space = search_spaces.load(architecture).space
        if parameter not in space:
            raise SettingsError(
                f"--fix {text!r}: {architecture} has no parameter {parameter!r}: "
                f"{nearest(parameter, list(space))}"
            )
        fixed.setdefault(architecture, {})[parameter] = _parse(text, value, space[parameter])
    return fixed


def _parse(text: str, value: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        choices = {str(choice): choice for choice in distribution.choices}
        if value in choices:
            return choices[value]
        raise SettingsError(f"--fix {text!r} must be one of {', '.join(choices)}.")
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    try:
        number = int(value) if isinstance(distribution, IntDistribution) else float(value)
    except ValueError:
        number = math.nan
    if not distribution.low <= number <= distribution.high:
        raise SettingsError(
            f"--fix {text!r} must be a number from {distribution.low} to {distribution.high}."
        )
    return number


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))  # pyright: ignore[reportPrivateUsage]
    except (ValueError, TypeError, OverflowError):
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
