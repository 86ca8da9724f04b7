"""The two rules of population based training (Jaderberg et al. 2017, https://arxiv.org/abs/1711.09846):
which trial continues from which, and with what. Pure functions of the record and of a seed.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution

from search_spaces import SearchSpace

MIN_TRIALS = 4
"""So many must have come, the compared one included, before any is given up."""

QUANTILES = 4
"""The lowest of so many parts of a population continues from the highest: its quarter."""

FACTORS = (0.8, 1.2)
"""By which a parameter with a logarithmic range is multiplied (section 4.1 of the paper)."""

STEP = 0.1
"""The fraction of a linear range by which a parameter moves: multiplied, 0 would stay 0."""


@dataclass(frozen=True)
class Arrival:
    """A trial's evaluation at a point at which trials are compared. Lower is better."""

    trial: str
    number: int
    """Of the trial."""

    evaluation: int
    """Which of its evaluations it is, from 1."""

    images: int
    value: float
    """The trial's objective then."""


def better_quarter(own: Arrival, others: Sequence[Arrival]) -> list[Arrival]:
    """Those that a trial may continue from, best first: empty unless there are enough trials and
    it is in the lowest quarter, and behind them.

    Of trials with equal values the one with the lower number is better.
    """
    everyone = sorted([own, *others], key=_rank)
    quarter = len(everyone) // QUANTILES
    if len(everyone) < MIN_TRIALS or own not in everyone[-quarter:]:
        return []
    return [arrival for arrival in everyone[:quarter] if arrival.value < own.value]


def better_half(everyone: Sequence[Arrival]) -> list[Arrival]:
    """Those whose states are kept, best first: with further trials one of them may be
    in the upper quarter. All of them, while there are few."""
    return sorted(everyone, key=_rank)[: max((len(everyone) + 1) // 2, MIN_TRIALS)]


def _rank(arrival: Arrival) -> tuple[float, int]:
    return arrival.value, arrival.number


def explore(
    space: SearchSpace, parameters: Mapping[str, Any], seed: int
) -> tuple[dict[str, Any], list[str]]:
    """The parameters that a trial continues with, and the names of those that were drawn.

    What may change in flight and is searched moves up or down, each by a draw of its own: by a
    fifth of its value if its range is logarithmic, else by a tenth of the range; never out of its
    range.

    Args:
        parameters: of the trial whose state is taken over.
    """
    draws, explored = random.Random(seed), dict(parameters)
    names: list[str] = []
    for name in explorable(space):
        direction = draws.random() < 0.5  # drawn for all, so that none depends on which apply
        if name not in parameters:
            continue
        distribution = space.space[name]
        assert isinstance(distribution, FloatDistribution)
        value = float(parameters[name])
        if distribution.log:
            value *= FACTORS[direction]
        else:
            value += (2 * direction - 1) * STEP * (distribution.high - distribution.low)
        explored[name] = min(max(value, distribution.low), distribution.high)
        names.append(name)
    return explored, names


def explorable(space: SearchSpace) -> list[str]:
    """What of a search space changes in flight: not what --fix has."""
    return [n for n in space.in_flight if isinstance(space.space.get(n), FloatDistribution)]
