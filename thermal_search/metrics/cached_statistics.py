"""The real images' statistics, computed once a dataset and kept with it."""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from zipfile import BadZipFile

from torch import Tensor

from thermal_search.metrics.extractor import Extractor
from thermal_search.metrics.statistics import Statistics
from thermal_search.storage import Location, StorageError


def cached_statistics_path(
    folder: Location | Path, extractor: Extractor, split: str, count: int
) -> Location:
    """Where they are kept in a dataset's folder of statistics: the name tells features, weights,
    split and number of images."""
    name = f"{extractor.metric}-{extractor.digest}-{extractor.precision}-{split}-{count}.npz"
    return Location.of(folder) / name


def load_cached(file: Location | Path) -> Statistics | None:
    """What is in `file`; None where it is absent or cannot be read."""
    try:
        return Statistics.load(file)
    except (OSError, StorageError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def measure(extractor: Extractor, images: Iterable[Tensor], start: int = 0) -> Statistics:
    """The statistics of uint8 batches; `start` is the number of this worker's first image."""
    statistics = Statistics(extractor.dimensions, measured_on=extractor.identity, start=start)
    for batch in images:
        statistics.add(extractor(batch))
    return statistics


def keep(statistics: Statistics, file: Location | Path) -> None:
    """Keeps them with the dataset. A read-only one is as good; it is measured again."""
    with contextlib.suppress(OSError, StorageError):
        statistics.save(file)
