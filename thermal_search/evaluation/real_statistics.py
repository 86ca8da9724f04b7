"""Feature statistics of a split's real thermal images, cached with the dataset."""

from collections.abc import Callable, Iterator

from torch import Tensor

from thermal_search.data.frames import EVALUATION_BATCH, EvaluationPairs
from thermal_search.distributed.worker_group import WorkerGroup, detect_lost_workers
from thermal_search.evaluation.evaluator import ignore_progress
from thermal_search.metrics import (
    Extractor,
    Statistics,
    compute_statistics,
    load_cached,
    save_cached,
)
from thermal_search.storage import Location


def real_statistics(
    path: Location, pairs: EvaluationPairs, extractor: Extractor, group: WorkerGroup
) -> Statistics:
    """The statistics cached in `path`; without a cache, measured by all workers together."""
    cached = group.broadcast_object(lambda: load_cached(path))
    return cached or measure_real_statistics(path, pairs, extractor, group)


def measure_real_statistics(
    path: Location,
    pairs: EvaluationPairs,
    extractor: Extractor,
    group: WorkerGroup,
    advance: Callable[[int], None] = ignore_progress,
) -> Statistics:
    """Measures the statistics by all workers together and caches them in `path`.

    `pairs` are this worker's. `advance` is called with the number of images of each batch once it
    is measured.
    """
    thermal = pairs.thermal

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(thermal), EVALUATION_BATCH):
            batch = thermal.take(range(start, min(start + EVALUATION_BATCH, len(thermal))))
            yield batch
            advance(len(batch))

    statistics = compute_statistics(extractor, batches(), pairs.start)
    with detect_lost_workers():
        statistics.all_reduce(group.control)
    if group.is_rank_zero:
        save_cached(statistics, path)
    return statistics
