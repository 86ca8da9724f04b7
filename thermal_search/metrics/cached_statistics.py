"""The real images' statistics, computed once for a dataset and cached with it."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from thermal_search.errors import StorageError
from thermal_search.metrics.extractor import Extractor
from thermal_search.metrics.statistics import Statistics
from thermal_search.storage import Location


def cached_statistics_path(
    folder: Location | Path, extractor: Extractor, split: str, count: int
) -> Location:
    """The file of these statistics in a dataset's folder of statistics.

    Its name holds the metric, the weights' digest, the precision, the split and the image count.
    """
    name = f"{extractor.metric}-{extractor.digest}-{extractor.precision}-{split}-{count}.npz"
    return Location.of(folder) / name


def load_cached(path: Location | Path) -> Statistics | None:
    """The statistics in a file; None if it is absent or cannot be read."""
    try:
        return Statistics.load(path)
    except (OSError, StorageError, ValueError):
        return None


def compute_statistics(
    extractor: Extractor, batches: Iterable[Tensor], first_index: int = 0
) -> Statistics:
    """The statistics of uint8 batches; `first_index`: of this worker's first image (see
    `Statistics`)."""
    statistics = Statistics(
        extractor.dimensions, measured_on=extractor.identity, first_index=first_index
    )
    for images in batches:
        statistics.add(extractor(images))
    return statistics


def save_cached(statistics: Statistics, path: Location | Path) -> None:
    """Saves them with the dataset. If it is read-only, they are measured again each time."""
    with contextlib.suppress(OSError, StorageError):
        statistics.save(path)
