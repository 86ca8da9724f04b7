"""Which hyperparameters mattered in recorded runs: settings with a value against those without it.

    python benchmarks/parameter_effects.py benchmarks/learning_curves.jsonl.gz

Every setting is compared with the mean of its architecture. A switch: settings that have it on
against those that have it off. A choice: each value against all others. A number: the upper half of
an architecture's values against the lower half. The table pools all architectures that have the
parameter. Every setting drew all its parameters at once, so that an effect is an average over all
others. Standard errors are in brackets; differences of more than three of them are marked: among so
many rows, some differ by two by chance alone.
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median, variance
from typing import Any

from recorded_curves import Curve, read_curves

MIN_SETTINGS = 8
"""On either side of a comparison."""


@dataclass(frozen=True)
class Setting:
    """A recorded setting; the mean of its seeds, relative to the mean of its architecture."""

    architecture: str
    parameters: dict[str, Any]
    distance: float
    """In percent."""

    l1: float
    """In gray levels."""


@dataclass(frozen=True)
class Effect:
    """Settings with a value against those without it."""

    parameter: str
    value: str
    architectures: int
    settings: tuple[int, int]
    distance: tuple[float, float]
    """Difference in percent of the distance, and its standard error."""

    l1: tuple[float, float]

    @property
    def t(self) -> float:
        difference, error = self.distance
        return difference / error if error else 0.0

    def row(self) -> str:
        cells = [
            f"{difference:+.1f} ({error:.1f})" + (" *" if abs(difference) > 3 * error else "")
            for difference, error in (self.distance, self.l1)
        ]
        counts = f"{self.settings[0]}, {self.settings[1]}"
        return f"| {self.parameter} | {self.value} | {self.architectures} | {counts} | " + (
            " | ".join(cells) + " |"
        )


def settings_of(curves: Sequence[Curve]) -> list[Setting]:
    """The settings of completed curves."""
    seeds: dict[tuple[str, int], list[Curve]] = defaultdict(list)
    for curve in curves:
        if curve.status == "completed":
            seeds[curve.architecture, curve.number].append(curve)
    found: dict[str, list[tuple[dict[str, Any], float, float]]] = defaultdict(list)
    for (architecture, _), runs in seeds.items():
        last = [run.evaluations[-1] for run in runs]
        distance, l1 = fmean(e.distance for e in last), fmean(e.l1 for e in last)
        found[architecture].append((runs[0].parameters, distance, l1))
    return [
        Setting(
            architecture,
            parameters,
            100 * (distance / fmean(row[1] for row in rows) - 1),
            l1 - fmean(row[2] for row in rows),
        )
        for architecture, rows in found.items()
        for parameters, distance, l1 in rows
    ]


def effects(settings: Sequence[Setting]) -> Iterator[Effect]:
    """All comparisons with enough settings on both sides."""
    names = {name for setting in settings for name in setting.parameters}
    for name in sorted(names):
        having = [setting for setting in settings if name in setting.parameters]
        for value, sides in _sides(having, name):
            with_it = [s for s, side in zip(having, sides, strict=True) if side is True]
            without = [s for s, side in zip(having, sides, strict=True) if side is False]
            if min(len(with_it), len(without)) >= MIN_SETTINGS:
                yield Effect(
                    name,
                    value,
                    len({setting.architecture for setting in with_it + without}),
                    (len(with_it), len(without)),
                    _difference([s.distance for s in with_it], [s.distance for s in without]),
                    _difference([s.l1 for s in with_it], [s.l1 for s in without]),
                )


def _sides(having: Sequence[Setting], name: str) -> Iterator[tuple[str, list[bool | None]]]:
    """Each value to compare, and by setting whether it has it; None: on neither side."""
    values = [setting.parameters[name] for setting in having]
    if all(isinstance(value, bool) for value in values):
        yield "on", list(values)
    elif any(isinstance(value, str) for value in values):
        different = sorted(set(map(str, values)))
        # Of two values, one row says all.
        for value in different[1:] if len(different) == 2 else different:
            yield value, [str(other) == value for other in values]
    else:
        middles = {
            architecture: median(
                s.parameters[name] for s in having if s.architecture == architecture
            )
            for architecture in {setting.architecture for setting in having}
        }
        yield "larger", [_half(s.parameters[name], middles[s.architecture]) for s in having]


def _half(value: float, middle: float) -> bool | None:
    return None if value == middle else value > middle


def _difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Of means, with its standard error."""
    return fmean(a) - fmean(b), math.sqrt(variance(a) / len(a) + variance(b) / len(b))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curves", type=Path)
    parser.add_argument(
        "--architectures", type=int, default=1, help="that have the parameter, at least"
    )
    args = parser.parse_args()
    _, curves = read_curves(args.curves)
    print("| Parameter | Value | Architectures | Settings with, without | Distance, % | L1 |")
    print("|---|---|---|---|---|---|")
    for effect in sorted(effects(settings_of(curves)), key=lambda effect: -abs(effect.t)):
        if effect.architectures >= args.architectures:
            print(effect.row())


if __name__ == "__main__":
    main()
