"""Finds the best GAN for turning RGB images into thermal-infrared ones.

The Python interface (docs/python.md) loads when it is used, so that importing the package is quick:
torch alone for `load_generator`, Ray and MLflow for a search.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from thermal_search.api.dataset import prepare
    from thermal_search.api.evaluation import evaluate
    from thermal_search.api.generator import LoadedGenerator, load_generator
    from thermal_search.api.search import SearchResult, open_search, search

__all__ = [
    "LoadedGenerator",
    "SearchResult",
    "evaluate",
    "load_generator",
    "open_search",
    "prepare",
    "search",
]

_MODULES = {
    "LoadedGenerator": "generator",
    "SearchResult": "search",
    "evaluate": "evaluation",
    "load_generator": "generator",
    "open_search": "search",
    "prepare": "dataset",
    "search": "search",
}
"""The modules of `thermal_search.api` that define the names."""


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"thermal_search.api.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
