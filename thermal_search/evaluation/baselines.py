"""Baselines for a generator's metrics: the same metrics of images that need no training."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from thermal_search.data.frames import EVALUATION_BATCH, Frames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.documents import Document
from thermal_search.errors import SearchError, StorageError
from thermal_search.evaluation.evaluator import Evaluator
from thermal_search.evaluation.ridge import RidgeRegression
from thermal_search.metrics import FrechetReference, KIDReference, Statistics
from thermal_search.storage import Location

Baselines = dict[str, dict[str, float]]
"""By the baseline's name: the metrics that apply to it, and its number of `images`."""

TRIVIAL_BASELINE = "inverted_grey"
"""The baseline that the objective is compared with: the negative of the gray RGB image."""

MEAN_THERMAL, RIDGE = "mean_thermal", "ridge"

BASELINE_PASSES = 4
"""How many times `measure_baselines` measures as many images as the split has."""

HALF_SPLITS = 4
"""Random splits of the real images into halves whose distances are averaged."""

SEED = 20_200_612
READ_BATCH = 64


class CachedBaselines(Document):
    """The file of a split's baselines in a dataset's folder of statistics."""

    REMEDY: ClassVar[str] = "delete it, and it is measured again"

    version: Literal[2] = 2
    protocol: dict[str, str | int]
    baselines: Baselines


def load_or_measure_baselines(
    evaluator: Evaluator,
    training: Sequence[Frames],
    training_rgb: Frames,
    folder: Location,
    split: str,
) -> Baselines:
    """The baselines of a split by the evaluator's protocol, cached in `folder`.

    Without a cache, all workers measure them together. `training` are this worker's thermal
    training frames by kind: of pairs, and without a partner; `training_rgb` are the pairs' RGB
    frames. In each kind the workers' shards follow each other by rank.
    """
    path = baselines_path(folder, split, evaluator.full_protocol)
    cached = evaluator.group.broadcast_object(lambda: load_cached_baselines(path))
    return cached or measure_and_cache_baselines(evaluator, training, training_rgb, path)


def measure_and_cache_baselines(
    evaluator: Evaluator, training: Sequence[Frames], training_rgb: Frames, path: Location
) -> Baselines:
    """Measures the baselines by all workers together and caches them in `path`."""
    baselines = measure_baselines(evaluator, training, training_rgb)
    if evaluator.group.is_rank_zero:
        # With a dataset on a read-only disk, they are measured again each time.
        with contextlib.suppress(OSError, StorageError):
            CachedBaselines(protocol=evaluator.full_protocol, baselines=baselines).write(path)
    return baselines


def measure_baselines(
    evaluator: Evaluator, training: Sequence[Frames], training_rgb: Frames
) -> Baselines:
    """Measures the baselines; the number of workers does not change them.

    `real_halves`: one half of the split's real images against the other. `inverted_grey`: the
    negative of the gray RGB image. `train`: training images against the split's. `mean_thermal`:
    the mean training image. `ridge`: a ridge regression on blurred RGB and position, if there are
    training pairs.
    """
    pairs, count = evaluator.pairs, evaluator.real.count
    real_halves = evaluator.group.broadcast_object(lambda: _measure_halves(evaluator))
    inverted_grey = evaluator.measure_pairs(
        _batches_like_pairs(evaluator, lambda indices: invert_grey(pairs.rgb.take(indices)))
    )
    lengths = torch.zeros(len(training), evaluator.group.size, dtype=torch.int64)
    lengths[:, evaluator.group.rank] = torch.tensor([len(frames) for frames in training])
    evaluator.group.sum(lengths)
    train = evaluator.measure_distribution(
        _evenly_spaced(training, lengths, evaluator.group.rank, count)
    )
    mean = _mean_image(training, int(lengths.sum()), evaluator.group)
    mean_thermal = evaluator.measure_pairs(
        _batches_like_pairs(evaluator, lambda indices: mean.expand(len(indices), -1, -1, -1))
    )
    baselines = {
        "real_halves": real_halves,
        TRIVIAL_BASELINE: inverted_grey | {"images": count},
        "train": train | {"images": count},
        MEAN_THERMAL: mean_thermal | {"images": count},
    }
    if regression := RidgeRegression.fit(training_rgb, training[0], evaluator.group):
        ridge = evaluator.measure_pairs(
            _batches_like_pairs(evaluator, lambda i: regression.predict(pairs.rgb.take(i)))
        )
        baselines[RIDGE] = ridge | {"images": count}
    return baselines


def baselines_path(folder: Location, split: str, protocol: Mapping[str, str | int]) -> Location:
    """The file of a split's baselines by this protocol in a dataset's folder of statistics."""
    text = json.dumps(dict(protocol), sort_keys=True)
    return folder / f"baselines-{split}-{hashlib.sha256(text.encode()).hexdigest()[:10]}.json"


def load_cached_baselines(path: Location) -> Baselines | None:
    """The baselines in a file; None if it is absent, damaged, or of another version."""
    try:
        return CachedBaselines.read(path).baselines
    except (OSError, StorageError, SearchError):
        return None


def _batches_like_pairs(
    evaluator: Evaluator, images_of: Callable[[range], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """uint8 batches of `images_of(indices)` and of the real images of the same pairs."""
    pairs = evaluator.pairs
    for start in range(0, len(pairs), EVALUATION_BATCH):
        indices = range(start, min(start + EVALUATION_BATCH, len(pairs)))
        real = pairs.thermal.take(indices)
        yield images_of(indices).to(evaluator.device), real.to(evaluator.device)


def _evenly_spaced(
    training: Sequence[Frames], lengths: Tensor, rank: int, count: int
) -> Iterator[tuple[int, Tensor]]:
    """This worker's batches of `count` evenly spaced training frames, each with its first index.

    As many as the split has images, because a distance falls with the number of images. `lengths`
    [kind, worker]: the number of frames. Frames are ordered by kind and then by worker, as on the
    disk.
    """
    total = int(lengths.sum())
    starts = (lengths.flatten().cumsum(0) - lengths.flatten()).view_as(lengths)
    for frames, start in zip(training, starts[:, rank].tolist(), strict=True):
        # Image i is frame i * total // count.
        first, end = (-(-edge * count // total) for edge in (start, start + len(frames)))
        for index in range(first, end, EVALUATION_BATCH):
            indices = range(index, min(index + EVALUATION_BATCH, end))
            yield index, frames.take(i * total // count - start for i in indices)


def invert_grey(rgb: Tensor) -> Tensor:
    """The baseline's images, uint8 [batch, 1, height, width], of uint8 RGB images."""
    # Here: torchvision takes two seconds to import.
    from torchvision.transforms.functional import rgb_to_grayscale

    return 255 - rgb_to_grayscale(rgb)


def _mean_image(training: Sequence[Frames], count: int, group: WorkerGroup) -> Tensor:
    """The mean of all workers' frames, `count` in total: [1, channels, size, size]."""
    total = torch.zeros(training[0].shape, dtype=torch.float64)
    for frames in training:
        for start in range(0, len(frames), READ_BATCH):
            batch = frames.take(range(start, min(start + READ_BATCH, len(frames))))
            total += batch.double().sum(0)
    return (group.sum(total) / count).round().to(torch.uint8)[None]


def _measure_halves(evaluator: Evaluator) -> dict[str, float]:
    """Mean distances between random halves of the real images; empty for fewer than four."""
    rows = evaluator.real.rows
    half = len(rows) // 2
    if half < 2:
        return {}
    random = Generator().manual_seed(SEED)
    frechet, kid = 0.0, 0.0
    for _ in range(HALF_SPLITS):
        order = torch.randperm(len(rows), generator=random)
        a, b = Statistics.of(rows[order[:half]]), Statistics.of(rows[order[half : 2 * half]])
        frechet += FrechetReference(a).distance(b) / HALF_SPLITS
        kid += KIDReference(a).distance(b).value / HALF_SPLITS
    return {evaluator.metric: frechet, evaluator.kid_metric: kid, "images": half}
