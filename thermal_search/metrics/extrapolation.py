"""The Frechet distance at infinitely many images (Chong & Forsyth 2020, arXiv 1911.07023)."""

import numpy as np
import torch
from torch import Generator

from thermal_search.metrics.frechet import FrechetReference
from thermal_search.metrics.statistics import Statistics

SUBSETS = 5
MIN_IMAGES = 20
SEED = 19_110_702


def extrapolate_to_infinity(reference: FrechetReference, generated: Statistics) -> float | None:
    """The squared Frechet distance without the generated side's bias; None for too few images.

    A distance falls with the number of images N, by about c / N, and c differs from generator to
    generator. It is measured on random subsets of half to all images, the same for every generator,
    and a line in 1 / N is extrapolated to 0. The real side stays as it is. With far fewer images
    than feature dimensions the fall is not linear, and only a part of the bias is removed. The
    result can be negative.
    """
    rows = generated.rows
    if len(rows) < MIN_IMAGES:
        return None
    random = Generator().manual_seed(SEED)
    sizes = np.linspace(len(rows) // 2, len(rows), SUBSETS).astype(int)
    distances: list[float] = []
    for size in sizes:
        subset = torch.randperm(len(rows), generator=random)[:size]
        distances.append(reference.distance(Statistics.of(rows[subset])))
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)
