"""What a search minimizes, as its flag says it: fid | kid | fid+10*lpips | pareto:fid,l1."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thermal_search.errors import SearchError
from thermal_search.metrics import metric_name

PARETO = "pareto:"
NAMES = ("fid", "kid", "l1", "lpips", "psnr", "ssim")
HIGHER_IS_BETTER = {"psnr", "ssim"}
TERM = re.compile(r"(?:(\d+(?:\.\d+)?)\*)?([a-z][a-z0-9_]*)")


@dataclass(frozen=True)
class Sum:
    """A weighted sum of metrics, to be minimized. Weights of metrics of which more is better are
    negative."""

    terms: tuple[tuple[float, str], ...]
    """Weights, and the keys the metrics are logged under."""

    def value(self, values: Mapping[str, float]) -> float:
        return sum(weight * values[key] for weight, key in self.terms)

    @property
    def keys(self) -> set[str]:
        return {key for _, key in self.terms}

    def __str__(self) -> str:
        words = [
            ("+" if weight > 0 else "-") + (key if abs(weight) == 1 else f"{abs(weight):g}*{key}")
            for weight, key in self.terms
        ]
        return "".join(words).removeprefix("+")


@dataclass(frozen=True)
class Objective:
    """One sum to minimize, or two that are traded against each other (a Pareto front)."""

    text: str
    """As it was asked for."""

    axes: tuple[Sum, ...]

    @property
    def has_two_objectives(self) -> bool:
        return len(self.axes) > 1

    @property
    def keys(self) -> set[str]:
        """The metrics that every evaluation must have."""
        return {key for axis in self.axes for key in axis.keys}

    def values(self, values: Mapping[str, float]) -> list[float]:
        """One value an axis, of one evaluation or one baseline."""
        return [axis.value(values) for axis in self.axes]

    def worth(self, history: Sequence[Mapping[str, Any]], last: int) -> list[float]:
        """What a trial is worth: for each axis, the mean over its `last` last evaluations. Empty
        where it has none.

        The lowest evaluation would be the luckiest one: an evaluation of a GAN in training swings
        more than neighboring generators differ.
        """
        recent = [self.values(item) for item in history[-last:]]
        return [sum(axis) / len(recent) for axis in zip(*recent, strict=True)]

    def named(self, values: Sequence[float]) -> dict[str, float]:
        """Values by the names of their axes."""
        return {str(axis): value for axis, value in zip(self.axes, values, strict=False)}


def parse_objective(text: str, features: str) -> Objective:
    """The objective of this text on these features; SearchError where it is none."""
    body = "".join(text.split())
    if not body.startswith(PARETO):
        return Objective(text, (_sum(body, text, features),))
    parts = body.removeprefix(PARETO).split(",")
    axes = tuple(_sum(part, text, features) for part in parts)
    if len(set(axes)) != 2 or len(axes) != 2:
        raise SearchError(
            f"--objective {text!r} must name two different measures, such as pareto:fid,l1: a "
            "front is of two."
        )
    return Objective(text, axes)


def front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """The names of the points that no other point is better than: no worse on every axis, and
    lower on one. Ordered by the first axis."""
    kept = [
        name
        for name, point in points.items()
        if not any(_dominates(other, point) for other in points.values())
    ]
    return sorted(kept, key=lambda name: tuple(points[name]))


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def _sum(body: str, text: str, features: str) -> Sum:
    terms: list[tuple[float, str]] = []
    for part in body.split("+"):
        match = TERM.fullmatch(part)
        if not match:
            raise SearchError(
                f"--objective {text!r} must be a metric, a weighted sum such as fid+10*lpips, or "
                f"pareto:fid,l1, but {part!r} is no term of one: write metric or weight*metric, "
                "with plain positive weights (what is better when higher, psnr and ssim, is "
                "subtracted by itself)."
            )
        weight, name = float(match[1] or 1), match[2]
        if not weight:
            raise SearchError(f"--objective {text!r}: the weight of {name} must be above 0.")
        key = _key(name, text, features)
        if any(known == key for _, known in terms):
            raise SearchError(f"--objective {text!r} must name {name} once.")
        terms.append((-weight if name in HIGHER_IS_BETTER else weight, key))
    return Sum(tuple(terms))


def _key(name: str, text: str, features: str) -> str:
    """`fid` asks for the Frechet distance, and `kid` for the kernel distance, on whatever features
    the search has; the key tells which."""
    distance = metric_name(features)
    suffix = distance.removeprefix("fd") if distance != "fid" else ""
    keys = {known: known for known in NAMES} | {"fid": distance, "kid": f"kid{suffix}"}
    if name in keys:
        return keys[name]
    if name in keys.values():
        return name
    raise SearchError(
        f"--objective {text!r}: unknown metric {name!r}. Available: {', '.join(NAMES)}."
    )
