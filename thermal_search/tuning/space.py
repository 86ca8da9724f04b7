"""The conditional space of a search: first the architecture, then the parameters of that one."""

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


def published_point(architecture: str) -> dict[str, Any]:
    """The paper's own parameters, in the flat form that Optuna enqueues."""
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
            raise TypeError(f"{name}: unknown distribution {type(distribution).__name__}.")
