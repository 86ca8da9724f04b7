"""What a radiometric camera's counts mean, and which degrees the dataset spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from thermal_search.errors import DatasetError
from thermal_search.images import Temperatures
from thermal_search.preparation.shards import ShardResult

PERCENTILES = (0.1, 99.9)
"""Of the training split's pixels: what is colder or hotter is clipped where no range is given."""

SMALLEST_SPAN = 1.0
"""Kelvin that a range found in the data spans at least."""


@dataclass(frozen=True)
class Scale:
    """T-linear counts to degrees, and the range that becomes -1 .. 1."""

    celsius: tuple[float, float] | None = None
    """The range; None: found in the training split."""

    kelvin_per_count: float = 0.04
    celsius_at_zero: float = -273.15

    def __post_init__(self) -> None:
        if self.celsius and not self.celsius[0] < self.celsius[1]:
            low, high = self.celsius
            raise DatasetError(
                f"--celsius must be LOW HIGH with LOW below HIGH, but is {low:g} {high:g}."
            )
        if not self.kelvin_per_count > 0:
            raise DatasetError(
                f"--kelvin-per-count must be above 0, but is {self.kelvin_per_count:g}."
            )

    def of(self, folder: Path, written: Sequence[ShardResult]) -> Temperatures:
        """With the range given, or that of the training split's shards."""
        low, high = self.celsius or self._range(folder, written)
        return Temperatures(low, high, self.kelvin_per_count, self.celsius_at_zero)

    def _range(self, folder: Path, written: Sequence[ShardResult]) -> tuple[float, float]:
        seen = np.zeros(65536, np.int64)
        for item in written:
            shard = item.shard
            if shard.split == "train" and shard.kind != "rgb" and shard.rows:
                column = pq.read_table(folder / shard.path, columns=["thermal"])["thermal"]
                for chunk in column.chunks:
                    data = chunk.buffers()[1]
                    assert data is not None
                    seen += np.bincount(np.frombuffer(data, "<u2"), minlength=65536)
        reached = np.cumsum(seen) / max(seen.sum(), 1)
        counts = [int(np.searchsorted(reached, share / 100)) for share in PERCENTILES]
        low, high = (
            round(count * self.kelvin_per_count + self.celsius_at_zero, 1) for count in counts
        )
        return low, max(high, round(low + SMALLEST_SPAN, 1))


FLIR_SCALE = Scale()
"""T-linear in low gain, the range found in the data."""
