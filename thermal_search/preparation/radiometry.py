"""The meaning of a radiometric camera's counts, and the degrees that a dataset spans."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from thermal_search.images import Temperatures
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.shards import ShardResult

PERCENTILES = (0.1, 99.9)
"""Percentiles of the training split's pixels: the default range; other pixels are clipped."""

MIN_SPAN = 1.0
"""Least span, in kelvin, of a range that is taken from the data."""


def measure_temperatures(
    settings: PreparationSettings, folder: Path, results: Sequence[ShardResult]
) -> Temperatures:
    """With the range of the settings, or of the training split's pixels if they name none."""
    low, high = settings.celsius or _training_range(settings, folder, results)
    return Temperatures(low, high, settings.kelvin_per_count, settings.celsius_at_zero)


def _training_range(
    settings: PreparationSettings, folder: Path, results: Sequence[ShardResult]
) -> tuple[float, float]:
    histogram = np.zeros(65536, np.int64)
    for result in results:
        if result.split == "train" and result.kind != "rgb" and result.rows:
            column = pq.read_table(folder / result.path, columns=["thermal"])["thermal"]
            for chunk in column.chunks:
                data = chunk.buffers()[1]
                assert data is not None
                histogram += np.bincount(np.frombuffer(data, "<u2"), minlength=65536)
    cumulative = np.cumsum(histogram) / max(histogram.sum(), 1)
    counts = [int(np.searchsorted(cumulative, percentile / 100)) for percentile in PERCENTILES]
    low, high = (
        round(count * settings.kelvin_per_count + settings.celsius_at_zero, 1) for count in counts
    )
    return low, max(high, round(low + MIN_SPAN, 1))
