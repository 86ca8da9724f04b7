"""Features of a set of images: every row while they are few, float64 sums beyond."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from thermal_search.errors import MetricError
from thermal_search.storage import Location

KEPT_IMAGES = 10_000
"""Rows that are kept: 82 MB of Inception's features in float32."""

Array = np.ndarray[Any, np.dtype[Any]]


class Statistics:
    """Features, streamed in batches and merged over workers, without any loss either way.

    At most `kept` rows stay as they are: few images span few dimensions, so a distance is found
    faster and more exactly from them than from a covariance. Once there are more, count, sum and
    sum of outer products of all rows are kept as well, and the rows are a random choice, in which
    each image has the same chance. It hangs on the images' numbers alone: the same ones of what is
    real and of what is painted, however many workers there are.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        kept: int = KEPT_IMAGES,
        measured_on: str = "",
        start: int = 0,
    ) -> None:
        self.dimensions, self.kept, self.start = dimensions, kept, start
        """`start`: the number of this worker's first image among those of all."""
        self.measured_on = measured_on
        """The extractor's identity: statistics of different ones have no distance."""
        self.count = 0
        self.sum = torch.zeros(dimensions, dtype=torch.float64)
        self._rows: list[Tensor] = []
        self._numbers: list[Array] = []
        self._last_lot: int | None = None
        """Of the rows once kept, the largest lot: no larger one is drawn any more."""
        self._outer: Tensor | None = None

    def add(self, features: Float[Tensor, "batch dimensions"], number: int | None = None) -> None:
        """Raises MetricError where a feature is not finite.

        `number`: the first one's among all workers' images, where it does not follow the last.
        """
        total = _sum(features)
        if not total.isfinite().all():
            raise MetricError(
                "Features must be finite numbers, but some are not: check the weights of the "
                "features' network, and measure in fp32."
            )
        first = self.start + self.count if number is None else number
        self.count += len(features)
        self.sum += total
        if self._outer is None and self.count > self.kept:
            self._outer = torch.zeros(self.dimensions, self.dimensions, dtype=torch.float64)
            for rows in self._rows:
                self._outer += _outer(rows)
        if self._outer is not None:
            self._outer += _outer(features)
        self._keep(features, np.arange(first, first + len(features)))

    def _keep(self, features: Tensor, numbers: Array) -> None:
        if self._last_lot is not None:
            drawn = np.flatnonzero(_priorities(numbers) < self._last_lot)
            features, numbers = features[torch.from_numpy(drawn)], numbers[drawn]
        self._rows.append(features.cpu())
        self._numbers.append(numbers)
        # Not at every batch: it copies all that is kept.
        if self._kept_count > 2 * self.kept:
            self._draw()

    def _draw(self) -> None:
        """Leaves the `kept` rows of the smallest lots, in the order of the images."""
        rows = torch.cat(self._rows or [torch.zeros(0, self.dimensions)])
        numbers = np.concatenate(self._numbers or [np.zeros(0, np.int64)])
        if len(rows) > self.kept:
            lots = _priorities(numbers)
            chosen = np.argsort(lots)[: self.kept]
            self._last_lot = int(lots[chosen[-1]])
            rows, numbers = rows[torch.from_numpy(chosen)], numbers[chosen]
        if (numbers[1:] < numbers[:-1]).any():
            order = np.argsort(numbers, kind="stable")
            rows, numbers = rows[torch.from_numpy(order)], numbers[order]
        self._rows, self._numbers = [rows], [numbers]

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merges over the workers of `group`, in their order; it must speak gloo.

        Every worker has what one alone would have: the same rows, the same sums.
        """
        if not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        size = dist.get_world_size(group)
        self._draw()
        counts = [torch.zeros(2, dtype=torch.int64) for _ in range(size)]
        dist.all_gather(counts, torch.tensor([self.count, self._kept_count]), group=group)
        total = int(sum(count[0] for count in counts))
        if total > self.kept:
            outer = self.outer.clone()
            dist.all_reduce(outer, group=group)
            self._outer = outer
        dist.all_reduce(self.sum, group=group)
        # Gloo gathers equal shapes only.
        longest = int(max(count[1] for count in counts))
        own = torch.zeros(longest, self.dimensions, dtype=self._type_over(group))
        own[: self._kept_count] = self.rows
        everyones = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(everyones, own, group=group)
        own_numbers = torch.zeros(longest, dtype=torch.int64)
        own_numbers[: self._kept_count] = torch.from_numpy(self._numbers[0])
        numbers = [torch.empty_like(own_numbers) for _ in range(size)]
        dist.all_gather(numbers, own_numbers, group=group)
        filled = [int(count[1]) for count in counts]
        self._rows = [part[:rows] for part, rows in zip(everyones, filled, strict=True)]
        self._numbers = [part[:rows].numpy() for part, rows in zip(numbers, filled, strict=True)]
        self._draw()
        self.count = total

    def _type_over(self, group: dist.ProcessGroup | None) -> torch.dtype:
        """One type for all: a worker without images does not know it."""
        is_double = torch.tensor(int(self.rows.dtype == torch.float64 and self._kept_count > 0))
        dist.all_reduce(is_double, group=group)
        return torch.float64 if is_double else torch.float32

    @property
    def _kept_count(self) -> int:
        return sum(len(rows) for rows in self._rows)

    @property
    def rows(self) -> Float[Tensor, "kept dimensions"]:
        """The features that are kept, in the order of the images."""
        if len(self._rows) != 1 or self._kept_count > self.kept:
            self._draw()
        return self._rows[0]

    @property
    def holds_all_rows(self) -> bool:
        return self._outer is None

    @property
    def outer(self) -> Float[Tensor, "dimensions dimensions"]:
        """Sum of the rows' outer products."""
        return _outer(self.rows) if self._outer is None else self._outer

    @property
    def mean(self) -> Array:
        return (self.sum / self.count).numpy()

    @property
    def covariance(self) -> Array:
        """Unbiased, divided by count - 1, as pytorch-fid's: [dimensions, dimensions]."""
        if self._outer is None:
            deviations = self.deviations
            # numpy multiplies a matrix with its own transpose in half the operations.
            covariance = deviations.T @ deviations
            covariance /= self.count - 1
            return covariance
        mean = self.mean
        return (self._outer.numpy() - self.count * np.outer(mean, mean)) / (self.count - 1)

    @property
    def deviations(self) -> Array:
        """The rows less their mean, in float64, where all are held."""
        assert self.holds_all_rows
        return np.subtract(self.rows.numpy(), self.mean, dtype=np.float64)

    def save(self, place: Location | Path) -> None:
        """Writes them, whole or not at all."""
        content: dict[str, Any] = {
            "count": self.count,
            "sum": self.sum.numpy(),
            "rows": self.rows.numpy(),
        }
        content["measured_on"] = self.measured_on
        if self._outer is not None:
            content["outer"] = self._outer.numpy()
        with Location.of(place).open_output() as file:
            np.savez(file, **content)

    @classmethod
    def load(cls, place: Location | Path) -> "Statistics":
        """ValueError, KeyError, OSError, EOFError or BadZipFile where `place` is not what save
        wrote."""
        with Location.of(place).open_input() as file, np.load(file, allow_pickle=False) as content:
            rows = torch.from_numpy(content["rows"])
            statistics = cls(rows.shape[1], kept=max(len(rows), KEPT_IMAGES))
            statistics.measured_on = str(content["measured_on"])
            statistics.count = int(content["count"])
            statistics.sum = torch.from_numpy(content["sum"])
            statistics._rows, statistics._numbers = [rows], [np.arange(len(rows))]
            if "outer" in content:
                statistics._outer = torch.from_numpy(content["outer"])
        return statistics

    @classmethod
    def of(cls, features: Sequence[Any] | Tensor) -> "Statistics":
        """Statistics of features that are all at hand."""
        features = torch.as_tensor(features)
        statistics = cls(features.shape[1])
        statistics.add(features)
        return statistics


def _priorities(numbers: Array) -> Array:
    """A random number for each image's number, always the same one (SplitMix64's mixing)."""
    lots = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    lots = (lots ^ (lots >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    lots = (lots ^ (lots >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return lots ^ (lots >> np.uint64(31))


def _sum(features: Tensor) -> Tensor:
    if features.device.type != "cpu":
        return features.sum(0, dtype=torch.float64).cpu()
    # A tenth of the time that torch takes, which converts all rows first.
    return torch.from_numpy(features.numpy().sum(0, dtype=np.float64))


def _outer(features: Tensor) -> Tensor:
    # float64 on the device they are on: in float32 the sums are too coarse for few images.
    if features.device.type != "cpu":
        features = features.double()
        return (features.T @ features).cpu()
    rows = features.double().numpy()
    return torch.from_numpy(rows.T @ rows)
