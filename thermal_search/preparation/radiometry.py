"""The meaning of a radiometric camera's counts, and the degrees that a dataset spans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from thermal_search.errors import DatasetError
from thermal_search.images import Temperatures
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.shards import ShardResult

Histogram = np.ndarray[Any, np.dtype[np.int64]]

PERCENTILES = (0.1, 99.9)
"""Percentiles of the training split's pixels: the default range; other pixels are clipped."""

POSSIBLE = (-90.0, 250.0)
"""Degrees Celsius that the median pixel of a scene may have: Antarctica's coldest, and furnaces'
surroundings. Another scale of the counts gives values far outside."""

MIN_INSIDE = 0.5
"""Least fraction of the pixels that a range of the settings must hold."""

MIN_SPAN = 1.0
"""Least span, in kelvin, of a range that is taken from the data."""


def measure_temperatures(
    settings: PreparationSettings, folder: Path, results: Sequence[ShardResult]
) -> Temperatures:
    """With the range of the settings, or of the training split's pixels if they name none.

    Raises DatasetError if the scale gives temperatures that no scene has, or if the range of the
    settings leaves out most of the pixels.
    """
    histogram = _training_histogram(folder, results)
    cumulative = np.cumsum(histogram) / max(histogram.sum(), 1)
    percentiles = (PERCENTILES[0], 50, PERCENTILES[1])
    counts = [int(np.searchsorted(cumulative, percentile / 100)) for percentile in percentiles]
    scale = settings.kelvin_per_count, settings.celsius_at_zero
    low, median, high = (round(count * scale[0] + scale[1], 1) for count in counts)
    if settings.celsius:
        degrees = np.arange(len(histogram)) * scale[0] + scale[1]
        inside = (degrees >= settings.celsius[0]) & (degrees <= settings.celsius[1])
        if histogram[inside].sum() < MIN_INSIDE * histogram.sum():
            raise DatasetError(
                f"--celsius must hold most of the pixels, but these are from {low:g} to {high:g} "
                f"degrees Celsius, with {scale[0]:g} K a count: pass another "
                "range, or the camera's --kelvin-per-count and --celsius-at-zero."
            )
        return Temperatures(*settings.celsius, *scale)
    if histogram.any() and not POSSIBLE[0] <= median <= POSSIBLE[1]:
        raise DatasetError(
            f"Thermal pixels must have possible temperatures, but would be from {low:g} to "
            f"{high:g} degrees Celsius, with {scale[0]:g} K a count: pass the "
            "camera's --kelvin-per-count (0.04 or 0.01 of FLIR's) and --celsius-at-zero, or "
            "--celsius LOW HIGH if they are right."
        )
    return Temperatures(low, max(high, round(low + MIN_SPAN, 1)), *scale)


def _training_histogram(folder: Path, results: Sequence[ShardResult]) -> Histogram:
    """How often each 16-bit count occurs in the training split."""
    histogram = np.zeros(65536, np.int64)
    for result in results:
        if result.split == "train" and result.kind != "rgb" and result.rows:
            column = pq.read_table(folder / result.path, columns=["thermal"])["thermal"]
            for chunk in column.chunks:
                data = chunk.buffers()[1]
                assert data is not None
                histogram += np.bincount(np.frombuffer(data, "<u2"), minlength=65536)
    return histogram
