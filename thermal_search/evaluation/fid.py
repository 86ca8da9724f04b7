"""`thermal-search fid`: the Frechet distance between two folders of images or their statistics."""

import os
import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thermal_search.errors import MetricError, printable
from thermal_search.metrics import FeaturesPrecision, Statistics, build_extractor, frechet_distance
from thermal_search.metrics.image_folders import (
    holds_statistics,
    images_in,
    load_statistics,
    measure_images,
)


def distance_between(
    first: Path,
    second: Path,
    *,
    features: str = "inception",
    inception_weights: Path | None = None,
    precision: FeaturesPrecision = "fp32",
    save: Path | None = None,
) -> tuple[str, float]:
    """The metric's key and the Frechet distance between the images at two paths.

    Each is a folder of images or a .npz file of statistics, from thermal-search or pytorch-fid.
    With `save`, the statistics of the first are saved. Raises MetricError or WeightsUnavailable if
    the distance cannot be computed.
    """
    for path in (first, second):
        if not (path.is_dir() or (path.is_file() and path.suffix == ".npz")):
            raise MetricError(
                f"{path} must be a folder of images or a .npz file of statistics, but is neither."
            )
    if save and not first.is_dir():
        raise MetricError(f"--save saves the statistics of a folder, but {first} is a file.")
    if save and save.suffix != ".npz":
        raise MetricError(f"--save must name a .npz file, but is {save}.")
    if save and os.path.lexists(save) and not holds_statistics(save):
        raise MetricError(f"--save {save} exists and holds no statistics: choose another file.")
    folders: dict[Path, list[Path]] = {}
    for path in (first, second):
        if path.is_dir():
            folders[path], ignored = images_in(path)
            for file, reason in ignored:
                print(printable(f"Not measured: {file}: {reason}"), file=sys.stderr)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = build_extractor(
        features, inception_weights=inception_weights, precision=precision, device=device
    )
    sides = {path: load_statistics(path, extractor) for path in (first, second) if path.is_file()}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        for path, images in folders.items():
            task = progress.add_task(escape(printable(path.name)), total=len(images))
            sides[path] = measure_images(
                images, extractor, lambda count, task=task: progress.advance(task, count)
            )
    if save:
        statistics = sides[first]
        assert isinstance(statistics, Statistics)
        try:
            statistics.save(save)
        except OSError as error:
            raise MetricError(
                f"--save {save} cannot be written ({error.strerror or error}): pass another."
            ) from None
    return extractor.metric, frechet_distance(sides[first], sides[second])
