"""Feature statistics of a set of images: every row of a small set, float64 sums of a large one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any
from zipfile import ZipFile

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from thermal_search.errors import MetricError
from thermal_search.storage import Location

MAX_ROWS = 10_000
"""Rows that are retained: 82 MB of Inception's features in float32."""

MAX_BYTES = 512 * 2**20
"""A file of statistics that claims more is damaged or malicious."""

Array = np.ndarray[Any, np.dtype[Any]]


class Statistics:
    """Features, streamed in batches and merged over workers; neither changes the result.

    At most `max_rows` rows are retained. Few images span few dimensions, so a distance is faster
    and more exact from their rows than from a covariance. Beyond `max_rows`, the count, the sum and
    the sum of outer products of all rows are accumulated, and the retained rows are a uniform
    random sample. Only the images' indices decide the sample: real and generated images of the same
    indices are sampled alike, by any number of workers.
    """

    def __init__(
        self,
        dimensions: int,
        *,
        max_rows: int = MAX_ROWS,
        measured_on: str = "",
        first_index: int = 0,
    ) -> None:
        self.dimensions, self.max_rows, self.first_index = dimensions, max_rows, first_index
        """`first_index`: of this worker's first image among those of all workers."""
        self.measured_on = measured_on
        """The extractor's identity: statistics of different extractors have no distance."""
        self.count = 0
        self.sum = torch.zeros(dimensions, dtype=torch.float64)
        self._rows: list[Tensor] = []
        self._indices: list[Array] = []
        self._max_priority: int | None = None
        """The largest priority in the sample so far: a row of a larger one is never retained."""
        self._outer: Tensor | None = None

    def add(self, features: Float[Tensor, "batch dimensions"], index: int | None = None) -> None:
        """Adds a batch. Raises MetricError if a feature is not finite.

        `index`: of its first image among those of all workers; by default the batch follows the
        previous one.
        """
        total = _sum(features)
        if not total.isfinite().all():
            raise MetricError(
                "Features must be finite numbers, but some are not: check the weights of the "
                "features' network, and measure in fp32."
            )
        first = self.first_index + self.count if index is None else index
        self.count += len(features)
        self.sum += total
        if self._outer is None and self.count > self.max_rows:
            self._outer = torch.zeros(self.dimensions, self.dimensions, dtype=torch.float64)
            for rows in self._rows:
                self._outer += _outer(rows)
        if self._outer is not None:
            self._outer += _outer(features)
        self._retain(features, np.arange(first, first + len(features)))

    def _retain(self, features: Tensor, indices: Array) -> None:
        if self._max_priority is not None:
            candidates = np.flatnonzero(_priorities(indices) < self._max_priority)
            features, indices = features[torch.from_numpy(candidates)], indices[candidates]
        self._rows.append(features.cpu())
        self._indices.append(indices)
        # Not at every batch: sampling copies all retained rows.
        if self._retained_count > 2 * self.max_rows:
            self._sample()

    def _sample(self) -> None:
        """Retains the `max_rows` rows of the smallest priorities, in the order of the images."""
        rows = torch.cat(self._rows or [torch.zeros(0, self.dimensions)])
        indices = np.concatenate(self._indices or [np.zeros(0, np.int64)])
        if len(rows) > self.max_rows:
            priorities = _priorities(indices)
            sampled = np.argsort(priorities)[: self.max_rows]
            self._max_priority = int(priorities[sampled[-1]])
            rows, indices = rows[torch.from_numpy(sampled)], indices[sampled]
        if (indices[1:] < indices[:-1]).any():
            order = np.argsort(indices, kind="stable")
            rows, indices = rows[torch.from_numpy(order)], indices[order]
        self._rows, self._indices = [rows], [indices]

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merges the statistics over the workers of `group`, whose backend must be gloo.

        Afterwards every worker has the rows and sums that a single worker would have.
        """
        if not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        size = dist.get_world_size(group)
        self._sample()
        counts = [torch.zeros(2, dtype=torch.int64) for _ in range(size)]
        dist.all_gather(counts, torch.tensor([self.count, self._retained_count]), group=group)
        total = int(sum(count[0] for count in counts))
        if total > self.max_rows:
            outer = self.outer.clone()
            dist.all_reduce(outer, group=group)
            self._outer = outer
        dist.all_reduce(self.sum, group=group)
        # Gloo gathers tensors of equal shapes only: shorter ones are padded.
        longest = int(max(count[1] for count in counts))
        own = torch.zeros(longest, self.dimensions, dtype=self._common_dtype(group))
        own[: self._retained_count] = self.rows
        gathered = [torch.empty_like(own) for _ in range(size)]
        dist.all_gather(gathered, own, group=group)
        own_indices = torch.zeros(longest, dtype=torch.int64)
        own_indices[: self._retained_count] = torch.from_numpy(self._indices[0])
        gathered_indices = [torch.empty_like(own_indices) for _ in range(size)]
        dist.all_gather(gathered_indices, own_indices, group=group)
        lengths = [int(count[1]) for count in counts]
        self._rows = [rows[:n] for rows, n in zip(gathered, lengths, strict=True)]
        self._indices = [
            indices[:n].numpy() for indices, n in zip(gathered_indices, lengths, strict=True)
        ]
        self._sample()
        self.count = total

    def _common_dtype(self, group: dist.ProcessGroup | None) -> torch.dtype:
        """The dtype of the rows, which a worker without images does not know."""
        is_double = torch.tensor(int(self.rows.dtype == torch.float64 and self._retained_count > 0))
        dist.all_reduce(is_double, group=group)
        return torch.float64 if is_double else torch.float32

    @property
    def _retained_count(self) -> int:
        return sum(len(rows) for rows in self._rows)

    @property
    def rows(self) -> Float[Tensor, "retained dimensions"]:
        """The retained features, in the order of the images."""
        if len(self._rows) != 1 or self._retained_count > self.max_rows:
            self._sample()
        return self._rows[0]

    @property
    def holds_all_rows(self) -> bool:
        return self._outer is None

    @property
    def outer(self) -> Float[Tensor, "dimensions dimensions"]:
        """The sum of all rows' outer products."""
        return _outer(self.rows) if self._outer is None else self._outer

    @property
    def mean(self) -> Array:
        return (self.sum / self.count).numpy()

    @property
    def covariance(self) -> Array:
        """Unbiased, divided by count - 1, as pytorch-fid's: [dimensions, dimensions]."""
        if self._outer is None:
            deviations = self.deviations
            # numpy multiplies a matrix by its own transpose in half the operations.
            covariance = deviations.T @ deviations
            covariance /= self.count - 1
            return covariance
        mean = self.mean
        return (self._outer.numpy() - self.count * np.outer(mean, mean)) / (self.count - 1)

    @property
    def deviations(self) -> Array:
        """The rows minus their mean, in float64. Only if all rows are retained."""
        assert self.holds_all_rows
        return np.subtract(self.rows.numpy(), self.mean, dtype=np.float64)

    def save(self, path: Location | Path) -> None:
        """Writes a .npz file so that a reader sees the old content or the new, never a part."""
        content: dict[str, Any] = {
            "count": self.count,
            "sum": self.sum.numpy(),
            "rows": self.rows.numpy(),
        }
        content["measured_on"] = self.measured_on
        if self._outer is not None:
            content["outer"] = self._outer.numpy()
        with Location.of(path).open_output() as file:
            np.savez(file, **content)

    @classmethod
    def load(cls, path: Location | Path) -> "Statistics":
        """Reads what `save` wrote. Raises OSError or ValueError if the file is anything else."""
        with Location.of(path).open_input() as file:
            content = read_arrays(file)
        try:
            rows, total, count = content["rows"], content["sum"], int(content["count"])
            outer = content.get("outer")
            statistics = cls(rows.shape[1], max_rows=max(len(rows), MAX_ROWS))
            statistics.measured_on = str(content["measured_on"])
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(f"an array is missing or has another form: {error}") from None
        is_whole = count == len(rows) if outer is None else count > len(rows)
        if not (is_whole and len(rows) >= 2 and total.shape == rows.shape[1:]):
            raise ValueError(f"count {count}, sum {total.shape} and rows {rows.shape}")
        if outer is not None and outer.shape != 2 * total.shape:
            raise ValueError(f"outer {outer.shape} and sum {total.shape}")
        if any(array.dtype.kind != "f" for array in (rows, total, outer) if array is not None):
            raise ValueError("arrays of other numbers than floats")
        is_finite = np.isfinite(total).all()  # if not, the reader of the statistics says so
        if outer is None and is_finite and not np.allclose(rows.sum(0, dtype=np.float64), total):
            raise ValueError("the sum is not that of the rows")
        statistics.count = count
        statistics.sum = torch.from_numpy(total)
        statistics._rows = [torch.from_numpy(rows)]
        statistics._indices = [np.arange(len(rows))]
        statistics._outer = None if outer is None else torch.from_numpy(outer)
        return statistics

    @classmethod
    def of(cls, features: Sequence[Any] | Tensor) -> "Statistics":
        """The statistics of features [images, dimensions] that are all in memory."""
        features = torch.as_tensor(features)
        statistics = cls(features.shape[1])
        statistics.add(features)
        return statistics


def read_arrays(file: IO[bytes]) -> dict[str, Array]:
    """The arrays of a .npz file. Raises OSError or ValueError if it is damaged, or if it claims
    more bytes than statistics have, which are then not read."""
    try:
        claimed = 0
        with ZipFile(file) as archive:
            for info in archive.infolist():
                with archive.open(info) as member:
                    version = np.lib.format.read_magic(member)
                    read = np.lib.format.read_array_header_1_0
                    if version != (1, 0):
                        read = np.lib.format.read_array_header_2_0
                    shape, _, dtype = read(member)
                claimed += math.prod(shape) * dtype.itemsize
        if claimed > MAX_BYTES:
            raise ValueError(f"arrays of {claimed} bytes, of which {MAX_BYTES} are read")
        file.seek(0)
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except OSError:
        raise
    except Exception as error:  # any, from the decoders of a damaged file
        raise ValueError(" ".join(str(error).split())[:200]) from None


def _priorities(indices: Array) -> Array:
    """A pseudo-random uint64 for each image's index, always the same (SplitMix64's mixing)."""
    mixed = (indices.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _sum(features: Tensor) -> Tensor:
    if features.device.type != "cpu":
        return features.sum(0, dtype=torch.float64).cpu()
    # A tenth of torch's time, which converts all rows first.
    return torch.from_numpy(features.numpy().sum(0, dtype=np.float64))


def _outer(features: Tensor) -> Tensor:
    # In float64, on the features' device: float32 sums are too coarse for few images.
    if features.device.type != "cpu":
        features = features.double()
        return (features.T @ features).cpu()
    rows = features.double().numpy()
    return torch.from_numpy(rows.T @ rows)
