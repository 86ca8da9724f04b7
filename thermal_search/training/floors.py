"""What a score is to be read against: the same measures of pictures that took no training."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from thermal_search.dataset.frames import EVALUATION_BATCH, Frames
from thermal_search.metrics import KernelReference, Reference, Statistics
from thermal_search.storage import Location, StorageError
from thermal_search.training.evaluation import Judge
from thermal_search.training.group import Group

HALVINGS = 4
SEED = 20_200_612
READ_AT_ONCE = 64

Floors = dict[str, dict[str, float]]

FLOOR_PASSES = 3
"""How often a split's number of pictures is measured for its floors."""

TO_BEAT = "inverted_grey"
"""The baseline that needs no training: what is no better has learned nothing of heat."""


def known_floors(judge: Judge, training: Sequence[Frames], folder: Location, split: str) -> Floors:
    """The floors of a split by the judge's protocol: kept in `folder`, that of the statistics,
    or measured by all workers together now. Each is named as what is judged in a generator's place,
    and holds the measures that apply to it and how many `images` it is of.

    `training` are this worker's thermal training frames, kind by kind; the workers have runs of
    each kind, one after the other.
    """
    file = floors_file(folder, split, judge.full_protocol)
    if kept := judge.group.ask_leader(lambda: kept_floors(file)):
        return kept
    floors = measure_floors(judge, training)
    if judge.group.leads:
        # A dataset on a read-only disk is as good; they are measured again.
        with contextlib.suppress(OSError, StorageError):
            file.write_text(
                json.dumps({"protocol": judge.full_protocol, "floors": floors}, indent=2)
            )
    return floors


def measure_floors(judge: Judge, training: Sequence[Frames]) -> Floors:
    """Real half against real half, train against the judged split, inverted grey RGB, the mean
    thermal picture. Any number of workers finds the same."""
    pairs, count = judge.pairs, judge.real.count
    halves = judge.group.ask_leader(lambda: _halves(judge))
    inverted = judge.measure(_in_place(judge, lambda numbers: _inverted(pairs.rgb.take(numbers))))
    lengths = torch.zeros(len(training), judge.group.size, dtype=torch.int64)
    lengths[:, judge.group.rank] = torch.tensor([len(frames) for frames in training])
    judge.group.sum(lengths)
    train = judge.measure_alone(_spread(training, lengths, judge.group.rank, count))
    mean = _mean(training, int(lengths.sum()), judge.group)
    average = judge.measure(_in_place(judge, lambda numbers: mean.expand(len(numbers), -1, -1, -1)))
    return {
        "real_halves": halves,
        TO_BEAT: inverted | {"images": count},
        "train": train | {"images": count},
        "mean_thermal": average | {"images": count},
    }


def floors_file(folder: Location, split: str, protocol: Mapping[str, str | int]) -> Location:
    """Where those of a split by this protocol are kept in a dataset's folder of statistics."""
    told = json.dumps(dict(protocol), sort_keys=True)
    return folder / f"floors-{split}-{hashlib.sha256(told.encode()).hexdigest()[:10]}.json"


def kept_floors(file: Location) -> Floors | None:
    """What is in `file`; None where it is absent or cannot be read."""
    try:
        content: Any = json.loads(file.read_text())
        return content["floors"]
    except (OSError, StorageError, ValueError, KeyError, TypeError):
        return None


def _in_place(judge: Judge, paint: Callable[[range], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures by their numbers beside the real ones, as bytes, in the judge's own batches."""
    pairs = judge.pairs
    for start in range(0, len(pairs), EVALUATION_BATCH):
        numbers = range(start, min(start + EVALUATION_BATCH, len(pairs)))
        yield paint(numbers).to(judge.device), pairs.thermal.take(numbers).to(judge.device)


def _spread(
    training: Sequence[Frames], lengths: Tensor, rank: int, count: int
) -> Iterator[tuple[int, Tensor]]:
    """This worker's of `count` pictures at even distances over all training frames, as many as the
    judged split has: a distance falls with the number of images. In batches, each after the number
    of its first one.

    `lengths` [kind, worker] says who has how many frames. They are counted kind by kind, and within
    a kind worker by worker, which is their order on the disk.
    """
    total = int(lengths.sum())
    starts = (lengths.flatten().cumsum(0) - lengths.flatten()).view_as(lengths)
    for frames, start in zip(training, starts[:, rank].tolist(), strict=True):
        # Picture n is frame n * total // count.
        first, end = (-(-edge * count // total) for edge in (start, start + len(frames)))
        for number in range(first, end, EVALUATION_BATCH):
            numbers = range(number, min(number + EVALUATION_BATCH, end))
            yield number, frames.take(n * total // count - start for n in numbers)


def _inverted(rgb: Tensor) -> Tensor:
    """What many take for thermal: bright where the RGB picture is dark."""
    return 255 - rgb_to_grayscale(rgb)


def _mean(training: Sequence[Frames], count: int, group: Group) -> Tensor:
    """Of all workers' frames, `count` altogether."""
    total = torch.zeros(training[0].shape, dtype=torch.float64)
    for frames in training:
        for start in range(0, len(frames), READ_AT_ONCE):
            part = frames.take(range(start, min(start + READ_AT_ONCE, len(frames))))
            total += part.double().sum(0)
    return (group.sum(total) / count).round().to(torch.uint8)[None]


def _halves(judge: Judge) -> dict[str, float]:
    """The mean over several ways to halve the real pictures; empty of fewer than four."""
    rows = judge.real.rows
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
    return {judge.metric: frechet, judge.kernel_metric: kernel, "images": half}
