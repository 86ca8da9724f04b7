"""Mean and covariance of features, streamed in float64, so that parts add up exactly."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


class Statistics:
    """Count, sum and sum of outer products of features. Sums merge over batches and workers."""

    def __init__(self, dimensions: int) -> None:
        self.count = 0
        self.sum = torch.zeros(dimensions, dtype=torch.float64)
        self.outer = torch.zeros(dimensions, dimensions, dtype=torch.float64)

    @property
    def dimensions(self) -> int:
        return len(self.sum)

    def add(self, features: Float[Tensor, "batch dimensions"]) -> None:
        # float64 on the device they are on: in float32 the sums are too coarse for few images.
        features = features.double()
        self.count += len(features)
        self.sum += features.sum(0).cpu()
        self.outer += (features.T @ features).cpu()

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Sums over the workers of `group`, which must speak gloo: the sums are on the CPU."""
        if not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        count = torch.tensor(self.count, dtype=torch.int64)
        for tensor in (count, self.sum, self.outer):
            dist.all_reduce(tensor, group=group)
        self.count = int(count)

    @property
    def mean(self) -> Float[Tensor, "dimensions"]:
        return self.sum / self.count

    @property
    def covariance(self) -> Float[Tensor, "dimensions dimensions"]:
        """Unbiased, divided by count - 1, as pytorch-fid's."""
        mean = self.mean
        return (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)

    def save(self, path: Path) -> None:
        """Writes the sums, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
        with partial.open("wb") as file:
            np.savez(file, count=self.count, sum=self.sum.numpy(), outer=self.outer.numpy())
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            statistics = cls(len(content["sum"]))
            statistics.count = int(content["count"])
            statistics.sum = torch.from_numpy(content["sum"])
            statistics.outer = torch.from_numpy(content["outer"])
        return statistics

    @classmethod
    def of(cls, features: Sequence[Any] | Tensor) -> "Statistics":
        """Statistics of features that are all at hand."""
        features = torch.as_tensor(features)
        statistics = cls(features.shape[1])
        statistics.add(features)
        return statistics
