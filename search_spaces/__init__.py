"""What a search varies: one file an architecture, plain data.

Each holds `SPACE` (fields of the architecture's Config, as Optuna distributions) and `PUBLISHED`
(the paper's own setting, which every search tries first).
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


def names() -> list[str]:
    """The architectures that have a search space, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> SearchSpace:
    """The search space of one architecture."""
    if name not in names():
        raise ValueError(f"Unknown architecture {name!r}. Available: {', '.join(names())}.")
    module = importlib.import_module(f"{__name__}.{name}")
    return SearchSpace(space=module.SPACE, published=module.PUBLISHED)
