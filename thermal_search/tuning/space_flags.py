"""--fix and --narrow: parts of the search spaces, as flags name them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from search_spaces import SearchSpace
from thermal_search.errors import SettingsError, known_names, near_name

PERCEPTUAL = "perceptual_network"
"""The parameter that names the network of a perceptual loss."""

Fixed = dict[str, dict[str, Any]]
"""Values that a search does not vary, by architecture and parameter."""

Narrowed = dict[str, dict[str, BaseDistribution]]
"""Parts of ranges and choices that a search keeps to, by architecture and parameter."""


def parse_fixed(texts: Sequence[str], spaces: Mapping[str, SearchSpace]) -> Fixed:
    """The values of --fix; SettingsError if one is not in its search space."""
    fixed: Fixed = {}
    for text in texts:
        architecture, parameter, value = _split("--fix", text, spaces, "pix2pix.batch_size=8")
        distribution = spaces[architecture].space[parameter]
        fixed.setdefault(architecture, {})[parameter] = _value("--fix", text, value, distribution)
    return fixed


def parse_narrowed(
    texts: Sequence[str], spaces: Mapping[str, SearchSpace], fixed: Fixed
) -> Narrowed:
    """The ranges and choices of --narrow; SettingsError if one is not a part of its search space,
    or if --fix has the parameter too."""
    narrowed: Narrowed = {}
    for text in texts:
        example = "pix2pix.generator_lr=1e-5:1e-3"
        architecture, parameter, value = _split("--narrow", text, spaces, example)
        if parameter in fixed.get(architecture, {}):
            raise SettingsError(
                f"--narrow {text!r}: --fix has a value for this parameter: leave one out."
            )
        if parameter in narrowed.setdefault(architecture, {}):
            raise SettingsError(f"--narrow has {architecture}.{parameter} twice: leave one out.")
        distribution = spaces[architecture].space[parameter]
        narrowed[architecture][parameter] = (
            _choices(text, value, distribution)
            if isinstance(distribution, CategoricalDistribution)
            else _range(text, value, distribution)
        )
    return narrowed


def without_measuring_network(
    features: str, spaces: Mapping[str, SearchSpace], fixed: Fixed, narrowed: Narrowed
) -> Narrowed:
    """`narrowed`, without perceptual losses on the network that the search measures with: a
    generator that minimizes what it is measured by would win, and be no better for it.

    SettingsError if --fix, --narrow or all of a search space asks for one.
    """
    result = {**narrowed}
    for architecture, space in spaces.items():
        kept = narrowed.get(architecture, {})
        value = fixed.get(architecture, {}).get(PERCEPTUAL)
        distribution = kept.get(PERCEPTUAL, space.space.get(PERCEPTUAL))
        if not isinstance(distribution, CategoricalDistribution):
            continue
        others = [choice for choice in distribution.choices if choice != features]
        is_asked = PERCEPTUAL in kept and len(others) < len(distribution.choices)
        if value == features or is_asked or not others:
            raise SettingsError(
                f"{architecture}.{PERCEPTUAL} must not be {features}, with which the search "
                "measures: choose another network, or other --features."
            )
        if value is None and len(others) < len(distribution.choices):
            result[architecture] = {**kept, PERCEPTUAL: CategoricalDistribution(others)}
    return result


def nearest_value(distribution: BaseDistribution, value: Any) -> Any:
    """The value itself if it is in the distribution; else the nearest bound or the first choice."""
    if contains(distribution, value):
        return value
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    return min(max(value, distribution.low), distribution.high)


def middle(distribution: BaseDistribution) -> Any:
    """The middle of a range, on its scale and its steps; the first of choices."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high, step = distribution.low, distribution.high, distribution.step
    center = math.sqrt(low * high) if distribution.log else (low + high) / 2
    value = low + round((center - low) / step) * step if step else center
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is in a distribution."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))  # pyright: ignore[reportPrivateUsage]
    except (ValueError, TypeError):
        return False


def describe(distribution: BaseDistribution) -> str:
    """What a value must be, in words."""
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {', '.join(str(choice) for choice in distribution.choices)}"
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    kind = "a whole number" if isinstance(distribution, IntDistribution) else "a number"
    return f"{kind} from {distribution.low} to {distribution.high}"


def _split(
    flag: str, text: str, spaces: Mapping[str, SearchSpace], example: str
) -> tuple[str, str, str]:
    name, _, value = text.partition("=")
    architecture, _, parameter = name.partition(".")
    if architecture not in spaces:
        if parameter and (near := near_name(architecture, spaces)):
            raise SettingsError(f"{flag} {text!r}: did you mean {near}.{parameter}?")
        raise SettingsError(
            f"{flag} must name a parameter of {', '.join(spaces)}, as in {example}, but is "
            f"{text!r}."
        )
    space = spaces[architecture].space
    if parameter not in space:
        raise SettingsError(
            f"{flag} {text!r}: {architecture} has no parameter {parameter!r}. "
            + known_names(parameter, space)
        )
    return architecture, parameter, value


def _value(flag: str, text: str, value: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        choices = {str(choice): choice for choice in distribution.choices}
        if value in choices:
            return choices[value]
        raise SettingsError(f"{flag} {text!r} must be one of {', '.join(choices)}.")
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    try:
        number = int(value) if isinstance(distribution, IntDistribution) else float(value)
    except ValueError:
        number = math.nan
    if not distribution.low <= number <= distribution.high:
        raise SettingsError(
            f"{flag} {text!r} must be a number from {distribution.low} to {distribution.high}."
        )
    return number


def _choices(
    text: str, value: str, distribution: CategoricalDistribution
) -> CategoricalDistribution:
    names = value.split("|")
    kept = {_value("--narrow", text, name, distribution) for name in names}
    if len(kept) < len(names):
        raise SettingsError(f"--narrow {text!r} must name each choice once.")
    return CategoricalDistribution([c for c in distribution.choices if c in kept])


def _range(text: str, value: str, distribution: BaseDistribution) -> BaseDistribution:
    low_text, colon, high_text = value.partition(":")
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    within = f"within {distribution.low}:{distribution.high}"
    if not colon:
        raise SettingsError(f"--narrow {text!r} must be a range {within}, such as LOW:HIGH.")
    kind = int if isinstance(distribution, IntDistribution) else float
    try:
        low, high = kind(low_text), kind(high_text)
    except ValueError:
        raise SettingsError(f"--narrow {text!r} must be two numbers {within}.") from None
    if not distribution.low <= low < high <= distribution.high:
        raise SettingsError(f"--narrow {text!r} must be a range {within}, the lower bound first.")
    if not (contains(distribution, low) and contains(distribution, high)):
        raise SettingsError(
            f"--narrow {text!r} must begin and end at a step of {distribution.step} from "
            f"{distribution.low}."
        )
    if isinstance(distribution, IntDistribution):
        return IntDistribution(int(low), int(high), log=distribution.log, step=distribution.step)
    return FloatDistribution(low, high, log=distribution.log, step=distribution.step)
