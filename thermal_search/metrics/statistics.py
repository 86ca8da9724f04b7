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

    The first `kept` rows stay as they are: few images span few dimensions, so a distance is found
    faster and more exactly from them than from a covariance. Once there are more, count, sum and
    sum of outer products of all rows are kept as well.
    """

    def __init__(self, dimensions: int, *, kept: int = KEPT_IMAGES, measured_on: str = "") -> None:
        self.dimensions, self.kept = dimensions, kept
        self.measured_on = measured_on
        """The extractor's identity: statistics of different ones have no distance."""
        self.count = 0
        self.sum = torch.zeros(dimensions, dtype=torch.float64)
        self._rows: list[Tensor] = []
        self._outer: Tensor | None = None

    def add(self, features: Float[Tensor, "batch dimensions"]) -> None:
        """Raises MetricError where a feature is not finite."""
        total = _sum(features)
        if not total.isfinite().all():
            raise MetricError(
                "Features must be finite numbers, but some are not: check the weights of the "
                "features' network, and measure in fp32."
            )
        room = max(self.kept - self._kept_count, 0)
        self._rows.append(features[:room].cpu())
        self.count += len(features)
        if self._outer is None and self.count > self.kept:
            self._outer = torch.zeros(self.dimensions, self.dimensions, dtype=torch.float64)
            for rows in self._rows:
                self._outer += _outer(rows)
            self._outer += _outer(features[room:])
        elif self._outer is not None:
            self._outer += _outer(features)
        self.sum += total

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merges over the workers of `group`, in their order; it must speak gloo.

        Every worker has what one alone would have: the same first rows, the same sums.
        """
        if not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        size = dist.get_world_size(group)
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
        rows = [part[: int(count[1])] for part, count in zip(everyones, counts, strict=True)]
        self._rows = [torch.cat(rows)[: self.kept]]
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
        """The first features, at most `kept`, in the order of the images."""
        if len(self._rows) != 1:
            self._rows = [torch.cat(self._rows or [torch.zeros(0, self.dimensions)])]
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
            statistics._rows = [rows]
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
