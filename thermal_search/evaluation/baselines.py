"""What a score is to be read against: the same measures of images that took no training."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from thermal_search.data.frames import EVALUATION_BATCH, Frames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.evaluation.evaluator import Evaluator
from thermal_search.metrics import KernelReference, Reference, Statistics
from thermal_search.storage import Location, StorageError

HALVINGS = 4
SEED = 20_200_612
READ_AT_ONCE = 64

Baselines = dict[str, dict[str, float]]

BASELINE_PASSES = 3
"""How often a split's number of images is measured for its baselines."""

TRIVIAL_BASELINE = "inverted_grey"
"""The baseline that needs no training: what is no better has learned nothing of heat."""


def load_or_measure_baselines(
    evaluator: Evaluator, training: Sequence[Frames], folder: Location, split: str
) -> Baselines:
    """The baselines of a split by the evaluator's protocol: kept in `folder`, that of the statistics,
    or measured by all workers together now. Each is named as what is judged in a generator's place,
    and holds the measures that apply to it and how many `images` it is of.

    `training` are this worker's thermal training frames, kind by kind; the workers have runs of
    each kind, one after the other.
    """
    file = baselines_path(folder, split, evaluator.full_protocol)
    if kept := evaluator.group.broadcast_object(lambda: load_cached_baselines(file)):
        return kept
    baselines = measure_baselines(evaluator, training)
    if evaluator.group.is_rank_zero:
        # A dataset on a read-only disk is as good; they are measured again.
        with contextlib.suppress(OSError, StorageError):
            file.write_text(
                json.dumps({"protocol": evaluator.full_protocol, "baselines": baselines}, indent=2)
            )
    return baselines


def measure_baselines(evaluator: Evaluator, training: Sequence[Frames]) -> Baselines:
    """Real half against real half, train against the judged split, inverted grey RGB, the mean
    thermal image. Any number of workers finds the same."""
    pairs, count = evaluator.pairs, evaluator.real.count
    halves = evaluator.group.broadcast_object(lambda: _halves(evaluator))
    inverted = evaluator.measure(
        _in_place(evaluator, lambda numbers: _inverted(pairs.rgb.take(numbers)))
    )
    lengths = torch.zeros(len(training), evaluator.group.size, dtype=torch.int64)
    lengths[:, evaluator.group.rank] = torch.tensor([len(frames) for frames in training])
    evaluator.group.sum(lengths)
    train = evaluator.measure_alone(_spread(training, lengths, evaluator.group.rank, count))
    mean = _mean(training, int(lengths.sum()), evaluator.group)
    average = evaluator.measure(
        _in_place(evaluator, lambda numbers: mean.expand(len(numbers), -1, -1, -1))
    )
    return {
        "real_halves": halves,
        TRIVIAL_BASELINE: inverted | {"images": count},
        "train": train | {"images": count},
        "mean_thermal": average | {"images": count},
    }


def baselines_path(folder: Location, split: str, protocol: Mapping[str, str | int]) -> Location:
    """Where those of a split by this protocol are kept in a dataset's folder of statistics."""
    told = json.dumps(dict(protocol), sort_keys=True)
    return folder / f"baselines-{split}-{hashlib.sha256(told.encode()).hexdigest()[:10]}.json"


def load_cached_baselines(file: Location) -> Baselines | None:
    """What is in `file`; None where it is absent or cannot be read."""
    try:
        content: Any = json.loads(file.read_text())
        return content["baselines"]
    except (OSError, StorageError, ValueError, KeyError, TypeError):
        return None


def _in_place(
    evaluator: Evaluator, paint: Callable[[range], Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images by their numbers beside the real ones, as bytes, in the evaluator's own batches."""
    pairs = evaluator.pairs
    for start in range(0, len(pairs), EVALUATION_BATCH):
        numbers = range(start, min(start + EVALUATION_BATCH, len(pairs)))
        yield paint(numbers).to(evaluator.device), pairs.thermal.take(numbers).to(evaluator.device)


def _spread(
    training: Sequence[Frames], lengths: Tensor, rank: int, count: int
) -> Iterator[tuple[int, Tensor]]:
    """This worker's of `count` images at even distances over all training frames, as many as the
    judged split has: a distance falls with the number of images. In batches, each after the number
    of its first one.

    `lengths` [kind, worker] says who has how many frames. They are counted kind by kind, and within
    a kind worker by worker, which is their order on the disk.
    """
    total = int(lengths.sum())
    starts = (lengths.flatten().cumsum(0) - lengths.flatten()).view_as(lengths)
    for frames, start in zip(training, starts[:, rank].tolist(), strict=True):
        # Image n is frame n * total // count.
        first, end = (-(-edge * count // total) for edge in (start, start + len(frames)))
        for number in range(first, end, EVALUATION_BATCH):
            numbers = range(number, min(number + EVALUATION_BATCH, end))
            yield number, frames.take(n * total // count - start for n in numbers)


def _inverted(rgb: Tensor) -> Tensor:
    """What many take for thermal: bright where the RGB image is dark."""
    return 255 - rgb_to_grayscale(rgb)


def _mean(training: Sequence[Frames], count: int, group: WorkerGroup) -> Tensor:
    """Of all workers' frames, `count` altogether."""
    total = torch.zeros(training[0].shape, dtype=torch.float64)
    for frames in training:
        for start in range(0, len(frames), READ_AT_ONCE):
            part = frames.take(range(start, min(start + READ_AT_ONCE, len(frames))))
            total += part.double().sum(0)
    return (group.sum(total) / count).round().to(torch.uint8)[None]


def _halves(evaluator: Evaluator) -> dict[str, float]:
    """The mean over several ways to halve the real images; empty of fewer than four."""
    rows = evaluator.real.rows
    half = len(rows) // 2
    if half < 2:
        return {}
    random = Generator().manual_seed(SEED)
    frechet, kernel = 0.0, 0.0
    for _ in range(HALVINGS):
        order = torch.randperm(len(rows), generator=random)
        a, b = Statistics.of(rows[order[:half]]), Statistics.of(rows[order[half : 2 * half]])
        frechet += Reference(a).distance(b) / HALVINGS
        kernel += KernelReference(a).distance(b).value / HALVINGS
    return {evaluator.metric: frechet, evaluator.kernel_metric: kernel, "images": half}
