"""What a search minimizes, as --objective says it: fid | kid | fid+10*lpips | pareto:fid,l1."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thermal_search.errors import SettingsError, nearest
from thermal_search.metrics import HIGHER_IS_BETTER, metric_name, suffix_of

PARETO = "pareto:"
NAMES = ("fid", "kid", "l1", "lpips", "psnr", "ssim")
TERM = re.compile(r"(?:(\d+(?:\.\d+)?)\*)?([a-z][a-z0-9_]*)")


@dataclass(frozen=True)
class Sum:
    """A weighted sum of metrics, to be minimized. Metrics of which higher is better have negative
    weights."""

    terms: tuple[tuple[float, str], ...]
    """Weights, and the keys of the metrics."""

    def value(self, metrics: Mapping[str, float]) -> float:
        return sum(weight * metrics[key] for weight, key in self.terms)

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
    """One sum to minimize, or two whose Pareto front is searched."""

    text: str
    """As --objective gives it."""

    axes: tuple[Sum, ...]

    @property
    def has_two_objectives(self) -> bool:
        return len(self.axes) > 1

    @property
    def keys(self) -> set[str]:
        """The metrics that every evaluation must have."""
        return {key for axis in self.axes for key in axis.keys}

    def values(self, metrics: Mapping[str, float]) -> list[float]:
        """One value per axis, of one evaluation or one baseline."""
        return [axis.value(metrics) for axis in self.axes]

    def mean_of_last(self, history: Sequence[Mapping[str, float]], count: int) -> list[float]:
        """A trial's objective: on each axis, the mean over the last `count` of its evaluations.
        Empty if it has none.

        The minimum would be the luckiest evaluation: a GAN in training varies more from one
        evaluation to the next than neighboring generators differ.
        """
        recent = [self.values(metrics) for metrics in history[-count:]]
        return [sum(axis) / len(recent) for axis in zip(*recent, strict=True)]

    def by_axis(self, values: Sequence[float]) -> dict[str, float]:
        """Values by the names of their axes."""
        return {str(axis): value for axis, value in zip(self.axes, values, strict=False)}


def parse_objective(text: str, features: str) -> Objective:
    """The objective of this text on these features; SettingsError if it is not one."""
    body = "".join(text.split())
    if not body.startswith(PARETO):
        return Objective(text, (_parse_sum(body, text, features),))
    parts = body.removeprefix(PARETO).split(",")
    axes = tuple(_parse_sum(part, text, features) for part in parts)
    if len(set(axes)) != 2 or len(axes) != 2:
        raise SettingsError(
            f"--objective {text!r} must name two different metrics, such as pareto:fid,l1: a "
            "Pareto front has two axes here."
        )
    return Objective(text, axes)


def pareto_front(points: Mapping[str, Sequence[float]]) -> list[str]:
    """The names of the points that no other point dominates (no worse on every axis, and lower on
    one), ordered by the first axis."""
    front = [
        name
        for name, point in points.items()
        if not any(_dominates(other, point) for other in points.values())
    ]
    return sorted(front, key=lambda name: tuple(points[name]))


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)


def _parse_sum(body: str, text: str, features: str) -> Sum:
    terms: list[tuple[float, str]] = []
    for part in body.split("+"):
        match = TERM.fullmatch(part)
        if not match:
            raise SettingsError(
                f"--objective {text!r} must be a metric, a weighted sum such as fid+10*lpips, or "
                f"pareto:fid,l1, but {part!r} is not a term: write metric or weight*metric with "
                "a positive weight (psnr and ssim, of which higher is better, are subtracted "
                "automatically)."
            )
        weight, name = float(match[1] or 1), match[2]
        if not weight:
            raise SettingsError(f"--objective {text!r}: the weight of {name} must be above 0.")
        key = _key(name, text, features)
        if any(other == key for _, other in terms):
            raise SettingsError(f"--objective {text!r} must name {name} once.")
        terms.append((-weight if name in HIGHER_IS_BETTER else weight, key))
    return Sum(tuple(terms))


def _key(name: str, text: str, features: str) -> str:
    """The key of a metric: `fid` means the Frechet distance, and `kid` the kernel distance, on the
    features of the search, which the key names."""
    distance = metric_name(features)
    kid = f"kid{suffix_of(distance)}"
    keys = {metric: metric for metric in NAMES} | {"fid": distance, "kid": kid}
    if name in keys:
        return keys[name]
    if name in keys.values():
        return name
    raise SettingsError(
        f"--objective {text!r}: unknown metric {name!r}: "
        f"{nearest(name, sorted({*NAMES, *keys.values()}), otherwise=', '.join(NAMES))}"
    )
