"""Feature statistics of a folder of images or from a file, read as `python -m pytorch_fid` does."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import Tensor

from thermal_search.errors import MetricError
from thermal_search.image_files import SUFFIXES, Unusable, find_images, read_image
from thermal_search.metrics.extractor import Extractor
from thermal_search.metrics.frechet import Gaussian, Moments
from thermal_search.metrics.statistics import Statistics, read_arrays

BATCH = 32
READERS = 4
MAX_NAMED = 5
"""Unreadable files that an error names; of more it gives the number."""


def images_in(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """A folder's images, sorted, and what looks like images but is not read, with the reason.

    Raises MetricError if there are fewer than two images.
    """
    paths, ignored = find_images(folder)
    if len(paths) < 2:
        found = f"; {ignored[0][0].name}: {ignored[0][1]}" if ignored else ""
        raise MetricError(
            f"A Frechet distance needs at least 2 images on each side, but {folder} holds "
            f"{len(paths)} ({', '.join(sorted(SUFFIXES))}){found}."
        )
    return paths, ignored


def measure_images(
    paths: Sequence[Path], extractor: Extractor, advance: Callable[[int], None]
) -> Statistics:
    """The statistics of images of any sizes; `advance` is called with the size of each batch.

    Raises MetricError if one cannot be read: the distance of the others would be another one.
    """
    statistics = Statistics(extractor.dimensions, measured_on=extractor.identity)
    unreadable: list[str] = []
    for images in _read_ahead(paths):
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for path, pixels in images:
            if isinstance(pixels, str):
                unreadable.append(f"{path.name}: {pixels}")
            else:
                by_shape[pixels.shape].append(pixels)
        if not unreadable:
            for batch in by_shape.values():
                statistics.add(extractor(torch.stack(batch)))
        advance(len(images))
    if unreadable:
        named = "; ".join(unreadable[:MAX_NAMED]) + (
            " and others" if len(unreadable) > MAX_NAMED else ""
        )
        raise MetricError(
            f"{len(unreadable)} of {len(paths)} images in {paths[0].parent} cannot be read "
            f"({named}): repair or remove them."
        )
    return statistics


def holds_statistics(file: Path) -> bool:
    """Whether a file has the arrays of statistics, by their names."""
    if not file.is_file():
        return False
    try:
        with ZipFile(file) as arrays:
            names = set(arrays.namelist())
    except (OSError, BadZipFile):
        return False
    return names >= {"mu.npy", "sigma.npy"} or names >= {"count.npy", "sum.npy", "rows.npy"}


def load_statistics(file: Path, extractor: Extractor) -> Gaussian:
    """The statistics in a .npz file that thermal-search or pytorch-fid wrote.

    Raises MetricError if it is neither, or was measured on other features than the extractor's.
    """
    try:
        with file.open("rb") as opened:
            content = read_arrays(opened)
        moments = None
        if {"mu", "sigma"} <= content.keys():
            moments = Moments(content["mu"].astype(float), content["sigma"].astype(float))
        gaussian = moments or Statistics.load(file)
        if moments and moments.covariance.shape != 2 * moments.mean.shape:
            raise ValueError(f"mu {moments.mean.shape} and sigma {moments.covariance.shape}")
    except (OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MetricError(
            f"{file} must be statistics that thermal-search or pytorch-fid saved, but cannot be "
            f"read as that ({reason}): pass the folder of images."
        ) from None
    if isinstance(gaussian, Statistics) and gaussian.measured_on != extractor.identity:
        raise MetricError(
            f"{file} was measured on {gaussian.measured_on or 'unnamed features'}, but "
            f"this distance is on {extractor.identity}: measure both the same way."
        )
    if isinstance(gaussian, Moments) and (extractor.metric, extractor.precision) != ("fid", "fp32"):
        raise MetricError(
            f"{file} is of pytorch-fid's Inception features in fp32, but this distance is on "
            f"{extractor.identity}: measure both the same way."
        )
    if gaussian.mean.shape != (extractor.dimensions,):
        raise MetricError(
            f"{file} must be statistics of {extractor.dimensions} features, but has those of "
            f"{gaussian.mean.size}: measure both the same way."
        )
    if not (np.isfinite(gaussian.mean).all() and np.isfinite(gaussian.covariance).all()):
        raise MetricError(f"{file} must hold finite numbers, but some are not: measure it again.")
    return gaussian


def _read_ahead(paths: Sequence[Path]) -> Iterator[list[tuple[Path, Tensor | str]]]:
    """Batches of decoded images; while one is used, the next one is read."""
    with ThreadPoolExecutor(READERS) as readers:
        chunks = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
        pending = [readers.submit(_read, path) for path in chunks[0]]
        for index, chunk in enumerate(chunks):
            ready = [future.result() for future in pending]
            next_chunk = chunks[index + 1] if index + 1 < len(chunks) else []
            pending = [readers.submit(_read, path) for path in next_chunk]
            yield list(zip(chunk, ready, strict=True))


def _read(path: Path) -> Tensor | str:
    """[3, height, width] in 0 .. 255, or why the image cannot be read."""
    try:
        return torch.from_numpy(read_image(path, "RGB", max_bits=8)).permute(2, 0, 1)
    except Unusable as error:
        return str(error)
