"""Code that people name on the command line: search spaces and architectures of their own.

A search keeps what such a file says of a space as data, and of an architecture a digest. Nothing
that it keeps can run code when it is read: a search that resumes is given an architecture's file
again.
"""

import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    distribution_to_json,
    json_to_distribution,
)
from pydantic import Field, field_validator

import search_spaces
from search_spaces import SearchSpace
from thermal_search.architectures import ARCHITECTURES
from thermal_search.architectures.from_file import FLAG, SourceFile, register, registered
from thermal_search.documents import Section
from thermal_search.errors import SearchError, SettingsError, known_names
from thermal_search.tuning.space_flags import contains, describe

SPACE_FLAG = "--space"


class Condition(Section):
    """When a conditional parameter applies."""

    parameter: str
    """The one that it depends on."""

    values: list[Any]
    """Of that one, which activate it."""


class OwnSpace(Section):
    """A search space that is not one of the package, as data."""

    digest: str
    """Of the file that it comes from."""

    space: dict[str, str]
    """Optuna's distributions, as Optuna writes them in JSON."""

    published: dict[str, Any]
    conditions: dict[str, Condition]
    in_flight: list[str] = Field(default_factory=list[str])
    """Parameters that may change while a trial trains."""

    @field_validator("space")
    @classmethod
    def _require_distributions(cls, space: dict[str, str]) -> dict[str, str]:
        for text in space.values():
            try:
                json_to_distribution(text)
            except Exception:  # Optuna raises several kinds
                raise ValueError("must hold distributions of Optuna") from None
        return space

    @classmethod
    def of(cls, space: SearchSpace, digest: str) -> Self:
        conditions = {
            name: Condition(parameter=other, values=[*values])
            for name, (other, values) in space.conditions.items()
        }
        return cls(
            digest=digest,
            space={name: distribution_to_json(kind) for name, kind in space.space.items()},
            published=dict(space.published),
            conditions=conditions,
            in_flight=[*space.in_flight],
        )

    def load(self) -> SearchSpace:
        """The space that was kept."""
        return SearchSpace(
            space={name: json_to_distribution(text) for name, text in self.space.items()},
            published=self.published,
            conditions={n: (c.parameter, tuple(c.values)) for n, c in self.conditions.items()},
            in_flight=tuple(self.in_flight),
        )


@dataclass(frozen=True)
class OwnCode:
    """What the files of one command line define."""

    architectures: dict[str, str] = field(default_factory=dict[str, str])
    """Digests by name."""

    spaces: dict[str, OwnSpace] = field(default_factory=dict[str, OwnSpace])
    """By architecture."""


def read_own_code(
    spaces: Sequence[str], architecture_files: Sequence[Path], kept: Collection[str] = ()
) -> OwnCode:
    """Runs the files of --architecture-file and --space, and registers their architectures.

    A file of an architecture may hold its space too; it needs none if the search has `kept` one.
    Raises SettingsError with one sentence for a
    file that is not what it must be.
    """
    own = OwnCode()
    for path in architecture_files:
        file = SourceFile.read(path, FLAG)
        module = register(file)
        own.architectures[file.name] = file.digest
        if hasattr(module, "SPACE"):
            space = space_of(module, file.name, f"{FLAG} {path}")
            own.spaces[file.name] = OwnSpace.of(space, file.digest)
    for text in spaces:
        name, _, path = text.rpartition("=")
        file = SourceFile.read(Path(path), SPACE_FLAG, name or None)
        if file.name not in ARCHITECTURES:
            raise SettingsError(
                f"{SPACE_FLAG} {text} must be named like its architecture, or have its name before "
                f"it as in pix2pix=FILE.py. " + known_names(file.name, ARCHITECTURES)
            )
        space = space_of(file.run(SPACE_FLAG), file.name, f"{SPACE_FLAG} {path}")
        own.spaces[file.name] = OwnSpace.of(space, file.digest)
    for name in own.architectures:
        if name not in own.spaces and name not in kept:
            raise SettingsError(
                f"{FLAG} {name}.py has no search space: define SPACE and PUBLISHED in it, or pass "
                f"{SPACE_FLAG} {name}=FILE.py."
            )
    return own


def space_of(module: types.ModuleType, architecture: str, source: str) -> SearchSpace:
    """The search space that a module defines, as the modules of `search_spaces` do. `source` begins
    each sentence about a mistake."""
    space = _mapping(module, "SPACE", source)
    published = _mapping(module, "PUBLISHED", source)
    conditions: Mapping[str, Any] = getattr(module, "CONDITIONS", {})
    known = {item.name for item in fields(ARCHITECTURES[architecture].Config)} - {"size"}
    if not space:
        raise SettingsError(f"{source}: SPACE must have at least one parameter.")
    for name, distribution in space.items():
        if name not in known:
            raise SettingsError(
                f"{source}: {architecture} has no parameter {name!r}. " + known_names(name, known)
            )
        if not isinstance(distribution, BaseDistribution):
            raise SettingsError(
                f"{source}: {name} must be a distribution of Optuna, but is {distribution!r:.60}."
            )
    _require_conditions(space, conditions, source)
    loaded = SearchSpace(
        space,
        published,
        {name: (other, tuple(v)) for name, (other, v) in conditions.items()},
        _in_flight(module, architecture, space, source),
    )
    _require_published(loaded, source)
    return loaded


def require_code(digests: Mapping[str, str]) -> None:
    """SearchError if an architecture that a search has from a file is not in this process's table,
    or was read from another file."""
    for name, digest in digests.items():
        if name not in registered:
            raise SearchError(
                f"The search has the architecture {name} from a file, which it keeps no copy of: "
                f"pass {FLAG} {name}.py again."
            )
        if registered[name].digest != digest:
            raise SearchError(
                f"{FLAG} {name}.py is not the file that the search began with (SHA-256 "
                f"{digest[:12]}..., now {registered[name].digest[:12]}...): pass that one, or "
                "start a new search."
            )


def _mapping(module: types.ModuleType, name: str, source: str) -> dict[str, Any]:
    value = getattr(module, name, None)
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SettingsError(
            f"{source} must define {name}, a dictionary by parameter, as the files in "
            "search_spaces/ do."
        )
    return {**value}


def _require_conditions(space: Mapping[str, Any], conditions: Any, source: str) -> None:
    if not isinstance(conditions, Mapping):
        raise SettingsError(f"{source}: CONDITIONS must be a dictionary by parameter.")
    order = [*space]
    for name, condition in conditions.items():
        try:
            other, values = condition
            values = tuple(values)
        except (TypeError, ValueError):
            other, values = "", ()
        if name not in space or other not in space or not values:
            raise SettingsError(
                f"{source}: the condition of {name!r} must be (PARAMETER, (VALUE, ...)), both "
                "parameters of SPACE."
            )
        if order.index(other) > order.index(name):
            raise SettingsError(f"{source}: {other} must be before {name}, which depends on it.")
        if wrong := [value for value in values if not contains(space[other], value)]:
            raise SettingsError(
                f"{source}: the condition of {name} has {other} = {wrong[0]!r:.40}, but it must be "
                f"{describe(space[other])}."
            )


def _in_flight(
    module: types.ModuleType, architecture: str, space: Mapping[str, Any], source: str
) -> tuple[str, ...]:
    """IN_FLIGHT; without one, that of the package's own space of the architecture."""
    packaged = search_spaces.load(architecture).in_flight if _is_packaged(architecture) else ()
    names: Any = getattr(module, "IN_FLIGHT", tuple(name for name in packaged if name in space))
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise SettingsError(f"{source}: IN_FLIGHT must be a list of parameters.")
    given = tuple(names)
    for name in given:
        if not isinstance(space.get(name), FloatDistribution):
            raise SettingsError(
                f"{source}: IN_FLIGHT has {name!r:.60}, but may have only parameters of SPACE with "
                "a range of floats."
            )
    return given


def _is_packaged(architecture: str) -> bool:
    return architecture in search_spaces.names() and architecture not in registered


def _require_published(space: SearchSpace, source: str) -> None:
    for name, value in space.published.items():
        if name not in space.space:
            raise SettingsError(
                f"{source}: PUBLISHED has {name!r}, which SPACE has not. "
                + known_names(name, space.space)
            )
        if not contains(space.space[name], value):
            raise SettingsError(
                f"{source}: PUBLISHED has {name} = {value!r:.40}, but it must be "
                f"{describe(space.space[name])}."
            )
    for name in space.space:
        if space.is_active(name, space.published) != (name in space.published):
            word = "must have" if name not in space.published else "must not have"
            raise SettingsError(f"{source}: PUBLISHED {word} {name}, by the CONDITIONS of SPACE.")
