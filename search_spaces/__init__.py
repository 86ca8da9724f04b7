"""The search spaces: one file per architecture, plain data.

Each file holds `SPACE` (Optuna distributions by field of the architecture's Config), `PUBLISHED`
(the paper's setting, which every search tries first), `CONDITIONS` if some parameters apply only
with certain values of others, and `IN_FLIGHT`, the parameters that may change while a trial trains.
Parameters that are not suggested keep their published value.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class SearchSpace:
    space: Mapping[str, BaseDistribution]
    published: Mapping[str, object]
    conditions: Mapping[str, tuple[str, tuple[object, ...]]]
    """For each conditional parameter: the one it depends on, and the values that activate it."""

    in_flight: tuple[str, ...] = ()
    """Parameters that may change between two training steps, because neither the networks nor the
    state of the optimizers depend on them: learning rates and loss weights."""

    def is_active(self, parameter: str, chosen: Mapping[str, object]) -> bool:
        """Whether `parameter` applies, given the values `chosen` so far. Not, if the parameter that
        it depends on does not apply."""
        if parameter not in self.conditions:
            return True
        other, values = self.conditions[parameter]
        return other in chosen and chosen[other] in values


def names() -> list[str]:
    """The architectures that have a search space, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> SearchSpace:
    """The search space of one architecture. Raises ValueError for an unknown name."""
    if name not in names():
        raise ValueError(f"Unknown architecture {name!r}. Available: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    conditions = getattr(module, "CONDITIONS", {})
    return SearchSpace(
        space=module.SPACE,
        published=module.PUBLISHED,
        conditions=conditions,
        in_flight=module.IN_FLIGHT,
    )
