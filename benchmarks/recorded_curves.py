"""The file of learning curves that learning_curves.py records and search_policies.py searches in.

JSON lines, gzipped if the name ends in .gz: first what all curves have in common (`Head`), then one
line for each run (`Curve`). A line is appended in one piece; a last line that was cut off is
dropped when the recording resumes.
"""

import gzip
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import ValidationError

from search_spaces import SearchSpace
from thermal_search.documents import Section
from thermal_search.tuning.own_code import OwnSpace
from thermal_search.tuning.samplers import filled, static_space

VERSION = 1

CurveStatus = Literal["completed", "diverged", "failed"]

Line = TypeVar("Line", bound=Section)


class Head(Section):
    """What all curves of a file have in common."""

    IDENTITY: ClassVar[Sequence[str]] = (
        "size", "images", "evaluations", "training_pairs", "validation_pairs", "seed", "spaces",
    )  # fmt: skip
    """What must agree for a recording to resume."""

    version: Literal[1] = VERSION
    size: int
    """Height and width of the images in pixels."""

    images: dict[str, int]
    """Budget of a run by architecture, in images shown."""

    evaluations: int
    training_pairs: int
    validation_pairs: int

    seed: int
    """Of the settings."""

    spaces: dict[str, OwnSpace]
    """By architecture: the spaces that the settings are drawn from."""

    protocol: dict[str, str | int]
    """How distances are measured."""

    baselines: dict[str, dict[str, float]]
    machine: str
    versions: dict[str, str]
    date: str


class Evaluation(Section):
    """One evaluation of a run."""

    images: int
    seconds: float
    """CPU-seconds of training until then, without evaluations."""

    distance: float
    kid: float
    l1: float


class Curve(Section):
    """One run of a setting."""

    architecture: str
    number: int
    """Counts the settings of an architecture, from 0: the published one."""

    seed: int
    parameters: dict[str, Any]
    status: CurveStatus
    reason: str = ""
    """Why it did not complete; empty otherwise."""

    evaluations: list[Evaluation]
    seconds: float
    """CPU-seconds of training until it ended."""

    evaluation_seconds: float
    """CPU-seconds of all evaluations."""

    @property
    def key(self) -> tuple[str, int, int]:
        return self.architecture, self.number, self.seed


def read_curves(path: Path) -> tuple[Head, list[Curve]]:
    """The head and the curves of a file; ValueError with one sentence if it is not such a file."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    if not lines:
        raise ValueError(f"{path} holds no curves: record some with learning_curves.py.")
    head = _parse(Head, lines[0], path, 1)
    return head, [_parse(Curve, line, path, n) for n, line in enumerate(lines[1:], start=2)]


def _parse(kind: type[Line], line: bytes, path: Path, number: int) -> Line:
    try:
        return kind.model_validate_json(line, strict=True)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "the line"
        raise ValueError(
            f"{path}, line {number}: {where}: {fault['msg']}: record the curves again with "
            "learning_curves.py."
        ) from None


class CurveFile:
    """A file that grows while curves are recorded."""

    def __init__(self, path: Path, head: Head) -> None:
        """Begins the file, or resumes it; ValueError if it holds curves of another recording."""
        self.path, self.recorded = path, set[tuple[str, int, int]]()
        if path.exists() and b"\n" in path.read_bytes():
            before, curves = read_curves(path)
            for name in Head.IDENTITY:
                if getattr(before, name) != getattr(head, name):
                    raise ValueError(
                        f"{path} holds curves of other {name}: continue with the settings that it "
                        "began with, or name another file."
                    )
            self.recorded = {curve.key for curve in curves}
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)  # a line that was cut off
        else:
            path.unlink(missing_ok=True)
            self._append(head)

    def add(self, curve: Curve) -> None:
        self._append(curve)
        self.recorded.add(curve.key)

    def _append(self, line: Section) -> None:
        text = line.model_dump_json().encode() + b"\n"
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, text)
            os.fsync(file)
        finally:
            os.close(file)


class NearestCurves:
    """The recorded settings as a table: gives each setting once, the nearest to a proposal.

    The distance is the root mean square over the parameters of the architecture, each scaled to
    0 .. 1 on its own scale (logarithmic if it is searched so); choices that differ count 1, and a
    parameter that does not apply has its published value, or the middle of its range.
    """

    def __init__(self, spaces: Mapping[str, SearchSpace], curves: Sequence[Curve]) -> None:
        self.spaces = spaces
        self.static = {name: static_space(space) for name, space in spaces.items()}
        self.points = {
            curve.key: self._scaled(curve.architecture, curve.parameters) for curve in curves
        }
        self.unused: dict[str, list[Curve]] = {name: [] for name in spaces}
        for curve in curves:
            self.unused[curve.architecture].append(curve)

    @property
    def architectures(self) -> list[str]:
        """Those that have settings left."""
        return [name for name, curves in self.unused.items() if curves]

    def take(self, architecture: str, parameters: Mapping[str, Any]) -> Curve:
        """The nearest setting that has not been taken yet; ValueError if none is left."""
        if not self.unused[architecture]:
            raise ValueError(f"No recorded setting of {architecture} is left.")
        point = self._scaled(architecture, parameters)
        curves = self.unused[architecture]
        nearest = min(curves, key=lambda curve: self._distance(point, self.points[curve.key]))
        curves.remove(nearest)
        return nearest

    def _scaled(self, architecture: str, parameters: Mapping[str, Any]) -> list[float | str]:
        values = filled(self.spaces[architecture], parameters)
        return [*_scaled(self.static[architecture], values)]

    @staticmethod
    def _distance(a: Sequence[float | str], b: Sequence[float | str]) -> float:
        total = 0.0
        for x, y in zip(a, b, strict=True):
            numeric = isinstance(x, float) and isinstance(y, float)
            total += (x - y) ** 2 if numeric else float(x != y)
        return math.sqrt(total / len(a))


def _scaled(
    space: Mapping[str, BaseDistribution], values: Mapping[str, Any]
) -> Iterator[float | str]:
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            yield str(values[name])
            continue
        assert isinstance(distribution, (FloatDistribution, IntDistribution))
        low, high, value = distribution.low, distribution.high, values[name]
        if distribution.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        yield float(value - low) / (high - low) if high > low else 0.0
