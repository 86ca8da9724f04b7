"""The Frechet distance at infinitely many images (Chong & Forsyth 2020, arXiv 1911.07023)."""

import numpy as np
import torch
from torch import Generator

from thermal_search.metrics.frechet import Reference
from thermal_search.metrics.statistics import Statistics

SIZES = 5
FEWEST_IMAGES = 20
SEED = 19_110_702


def at_infinity(reference: Reference, painted: Statistics) -> float | None:
    """Squared Frechet distance where the painted side's bias is gone; None of too few images.

    A distance falls with the number of images, by about c / number with a c that differs from
    generator to generator. It is measured on random subsets of half to all images, the same for
    every generator, and a line in 1 / number is followed to 0. The real side stays as it is. Far
    below as many images as features have dimensions the fall is no line, and this takes away a
    part of the bias only; it may be below 0.
    """
    rows = painted.rows
    if len(rows) < FEWEST_IMAGES:
        return None
    random = Generator().manual_seed(SEED)
    sizes = np.linspace(len(rows) // 2, len(rows), SIZES).astype(int)
    distances: list[float] = []
    for size in sizes:
        chosen = torch.randperm(len(rows), generator=random)[:size]
        distances.append(reference.distance(Statistics.of(rows[chosen])))
    _, intercept = np.polyfit(1 / sizes, distances, 1)
    return float(intercept)
