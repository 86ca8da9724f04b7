"""The conditional space of a search: first the architecture, then the parameters of that one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

import search_spaces
from thermal_search.errors import SettingsError

Fixed = dict[str, dict[str, Any]]
"""Values that a search does not vary, by architecture and parameter."""

OBJECTIVE = "objective"
"""The key that Ray Tune and Optuna minimize: the mean over a trial's last evaluations."""

SECOND_OBJECTIVE = "second_objective"
"""The other axis, if there are two objectives."""

RETRAINING_CONFIG = "retraining"
"""The key of a retraining's TrialConfig in the config of its Ray Tune trial."""


@dataclass(frozen=True)
class TrialConfig:
    """What a trial of Ray Tune trains."""

    architecture: str
    parameters: Mapping[str, Any]
    finalist: str | None = None
    """The finalist that is retrained; None for a trial of the search."""

    seed: int | None = None
    """The seed of a retraining; None for the search's seed."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "TrialConfig":
        """From the config of a Ray Tune trial: as the sampler proposed it, or of a retraining."""
        chosen = config.get(RETRAINING_CONFIG, config)
        architecture: str = chosen["architecture"]
        return cls(
            architecture,
            chosen.get(architecture, {}),
            finalist=chosen.get("finalist"),
            seed=chosen.get("seed"),
        )

    def to_tune(self) -> dict[str, Any]:
        """The value under RETRAINING_CONFIG in the config of a retraining."""
        return {
            "architecture": self.architecture,
            self.architecture: dict(self.parameters),
            "finalist": self.finalist,
            "seed": self.seed,
        }


class ConditionalSpace:
    """Suggests an architecture and its parameters, under names prefixed by the architecture.

    A class and not a closure, because Ray pickles the searcher with its space. The prefixes keep
    equal names of different architectures apart, so that Optuna's TPE models each by itself.
    """

    def __init__(self, architectures: Sequence[str], fixed: Fixed | None = None) -> None:
        self.spaces = {name: search_spaces.load(name) for name in architectures}
        self.fixed = fixed or {}

    def __call__(self, trial: optuna.Trial) -> None:
        architecture = trial.suggest_categorical("architecture", list(self.spaces))
        space = self.spaces[architecture]
        chosen: dict[str, object] = {}
        for parameter, distribution in space.space.items():
            if space.is_active(parameter, chosen):
                name = f"{architecture}/{parameter}"
                fixed = self.fixed.get(architecture, {})
                if parameter in fixed:
                    distribution = CategoricalDistribution([fixed[parameter]])
                chosen[parameter] = _suggest(trial, name, distribution)


def published_point(architecture: str, fixed: Fixed | None = None) -> dict[str, Any]:
    """The paper's own parameters but for those that are fixed, in the flat form that Optuna
    enqueues."""
    space = search_spaces.load(architecture)
    point = {**space.published, **(fixed or {}).get(architecture, {})}
    active = {name: value for name, value in point.items() if space.is_active(name, point)}
    return {"architecture": architecture} | {f"{architecture}/{k}": v for k, v in active.items()}


def parse_fixed(texts: Sequence[str], architectures: Sequence[str]) -> Fixed:
    """The values of --fix by architecture and parameter; SettingsError if one is not in its
    search space."""
    fixed: Fixed = {}
    for text in texts:
        name, _, value = text.partition("=")
        architecture, _, parameter = name.partition(".")
        if architecture not in architectures:
            raise SettingsError(
                f"--fix must name a parameter of {', '.join(architectures)}, as in "
                f"pix2pix.batch_size=8, but is {text!r}."
            )
        space = search_spaces.load(architecture).space
        if parameter not in space:
            raise SettingsError(
                f"--fix {text!r}: {architecture} has no parameter {parameter!r}. "
                f"Available: {', '.join(space)}."
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
