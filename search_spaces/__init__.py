"""What a search varies: one file an architecture, plain data.

Each holds `SPACE` (fields of the architecture's Config, as Optuna distributions), `PUBLISHED` (the
paper's own setting, which every search tries first), and, where some parameters mean something only
beside others, `CONDITIONS`. What is not suggested keeps its published value.
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
    """By parameter: the one it hangs on, and the values of that one for which it is suggested."""

    def is_active(self, parameter: str, chosen: Mapping[str, object]) -> bool:
        """Whether `parameter` means anything beside what is `chosen` already."""
        if parameter not in self.conditions:
            return True
        other, values = self.conditions[parameter]
        return chosen[other] in values


def names() -> list[str]:
    """The architectures that have a search space, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> SearchSpace:
    """The search space of one architecture."""
    if name not in names():
        raise ValueError(f"Unknown architecture {name!r}. Available: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    conditions = getattr(module, "CONDITIONS", {})
    return SearchSpace(space=module.SPACE, published=module.PUBLISHED, conditions=conditions)
