"""--first: settings that a search tries before any other, from a file that a person writes.

- architecture: pix2pix
  parameters: {batch_size: 8, l1_weight: 50}
- architecture: wgan
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from search_spaces import SearchSpace
from thermal_search.architectures import ARCHITECTURES
from thermal_search.documents import Section
from thermal_search.errors import SettingsError, known_names
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space_flags import contains, describe

FLAG = "--first"


class Setting(Section):
    """What a trial trains."""

    architecture: str
    parameters: dict[str, Any]

    @property
    def config(self) -> TrialConfig:
        return TrialConfig(self.architecture, self.parameters)


def read_first(path: Path, spaces: Mapping[str, SearchSpace]) -> list[Setting]:
    """The settings in a file of YAML or JSON, in their order, each with all its parameters: those
    that it leaves out have their published value.

    Raises SettingsError with one sentence for the first mistake.
    """
    settings: list[Setting] = []
    for number, item in enumerate(_load(path), start=1):
        where = f"{FLAG} {path}, setting {number}"
        if not isinstance(item, Mapping) or "architecture" not in item:
            raise SettingsError(
                f"{where} must have an architecture and parameters, but is {_short(item)}."
            )
        if unknown := sorted(str(key) for key in item.keys() - {"architecture", "parameters"}):
            raise SettingsError(
                f"{where} has an unknown key {unknown[0]!r}. "
                + known_names(unknown[0], ["architecture", "parameters"])
            )
        setting = _complete(item, spaces, where)
        if setting in settings:
            raise SettingsError(
                f"{where} is the same as setting {settings.index(setting) + 1}: leave one out."
            )
        settings.append(setting)
    return settings


def _load(path: Path) -> Sequence[Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{FLAG} {path} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(f"{FLAG} {path} must be YAML or JSON, but is not: {reason}.") from None
    if not isinstance(content, list) or not content:
        raise SettingsError(
            f"{FLAG} {path} must be a list of settings, such as "
            "[{architecture: pix2pix, parameters: {batch_size: 8}}]."
        )
    return content


def _complete(item: Mapping[str, Any], spaces: Mapping[str, SearchSpace], where: str) -> Setting:
    architecture, given = item["architecture"], item.get("parameters") or {}
    if architecture not in spaces:
        raise SettingsError(
            f"{where}: {_short(architecture)} is not an architecture of this search. "
            + known_names(str(architecture), spaces)
        )
    if not isinstance(given, Mapping):
        raise SettingsError(f"{where}: parameters must be names with values.")
    space = spaces[architecture]
    chosen: dict[str, Any] = {}
    for name, value in given.items():
        if name not in space.space:
            raise SettingsError(
                f"{where}: {architecture} has no parameter {_short(name)}. "
                + known_names(str(name), space.space)
            )
        parsed = _parse(value, space.space[name])
        if parsed is None:
            raise SettingsError(
                f"{where}: {name} must be {describe(space.space[name])}, but is {_short(value)}."
            )
        chosen[name] = parsed
    parameters: dict[str, Any] = {}
    defaults = {item.name: item.default for item in fields(ARCHITECTURES[architecture].Config)}
    for name, distribution in space.space.items():
        if not space.is_active(name, parameters):
            if name in given:
                other, values = space.conditions[name]
                raise SettingsError(
                    f"{where}: {name} applies only if {other} is "
                    f"{' or '.join(str(value) for value in values)}."
                )
            continue
        value = chosen.get(name, space.published.get(name, defaults.get(name)))
        if not contains(distribution, value):
            raise SettingsError(
                f"{where} must have {name}, {describe(distribution)}: it has no published value."
            )
        parameters[name] = value
    return Setting(architecture=architecture, parameters=parameters)


def _parse(value: Any, distribution: BaseDistribution) -> Any:
    """A value of a file as a distribution has it; None if it is not in there."""
    if isinstance(distribution, CategoricalDistribution):
        # In Python, True equals 1.
        same = [c for c in distribution.choices if (c == value and type(c) is type(value))]
        same = same or [c for c in distribution.choices if c == value and not _is_bool(c, value)]
        return same[0] if same else None
    if isinstance(value, bool):
        return None
    try:
        number = float(value)  # YAML takes 1e-4 for a text
    except (TypeError, ValueError):
        return None
    if not contains(distribution, number):
        return None
    return int(number) if isinstance(distribution, IntDistribution) else number


def _is_bool(*values: Any) -> bool:
    return any(isinstance(value, bool) for value in values)


def _short(value: object) -> str:
    return " ".join(repr(value).split())[:60]
