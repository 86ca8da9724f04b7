"""Ridge regression from blurred colors to thermal: what brightness and place alone predict.

Hoerl & Kennard 1970, https://doi.org/10.1080/00401706.1970.10488634
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from thermal_search.data.frames import EVALUATION_BATCH, Frames
from thermal_search.distributed.worker_group import WorkerGroup

BLURS = (32, 8, 2)
"""Pixels a side to which the RGB image is reduced, and enlarged again: three blurs."""

FEATURES = 2 * 3 * len(BLURS)
PENALTY = 1e-3
"""Of the squared weights, relative to the features' mean variance."""

MAX_PAIRS = 2000
"""Training pairs that the regression is fitted on, evenly spaced."""


@dataclass(frozen=True)
class RidgeRegression:
    """One weight for each feature, the same at all pixels, and the mean images of the pairs."""

    weights: Float[Tensor, " features"]
    features: Float[Tensor, "features size size"]
    """Means over the training pairs."""

    thermal: Float[Tensor, "size size"]
    """The mean thermal image, 0 .. 255."""

    @classmethod
    def fit(cls, rgb: Frames, thermal: Frames, group: WorkerGroup) -> "RidgeRegression | None":
        """Fits by the closed form on the pairs of all workers' shards; None if there are none.

        The shards follow each other by rank. The number of workers does not change the result.
        """
        size = rgb.shape[-1]
        lengths = torch.zeros(group.size, dtype=torch.int64)
        lengths[group.rank] = len(rgb)
        total = int(group.sum(lengths).sum())
        if not total:
            return None
        before, fitted = int(lengths[: group.rank].sum()), min(total, MAX_PAIRS)
        indices = [
            position
            for i in range(fitted)
            if 0 <= (position := i * total // fitted - before) < len(rgb)
        ]
        sums = torch.zeros(FEATURES + 1, size, size, dtype=torch.float64)
        products = torch.zeros(FEATURES + 1, FEATURES + 1, dtype=torch.float64)
        for batch in _batches(indices):
            of_rgb = _features(rgb.take(batch))
            values = torch.cat([of_rgb, thermal.take(batch).float()], dim=1).double()
            sums += values.sum(0)
            products += torch.einsum("nfhw,nghw->fg", values, values)
        group.sum(sums)
        group.sum(products)
        means = sums / fitted
        # Around each pixel's own mean: place alone is predicted by the mean thermal image.
        products -= fitted * torch.einsum("fhw,ghw->fg", means, means)
        covariance, target = products[:-1, :-1], products[:-1, -1]
        penalty = PENALTY * covariance.diagonal().mean().clamp(min=1e-9)
        weights = torch.linalg.solve(covariance + penalty.expand(FEATURES).diag(), target)
        return cls(weights.float(), means[:-1].float(), means[-1].float())

    def predict(
        self, rgb: UInt8[Tensor, "batch 3 size size"]
    ) -> UInt8[Tensor, "batch 1 size size"]:
        deviation = _features(rgb) - self.features
        thermal = self.thermal + torch.einsum("f,nfhw->nhw", self.weights, deviation)
        return thermal.round().clamp(0, 255).to(torch.uint8)[:, None]


def _batches(indices: list[int]) -> Iterator[Iterable[int]]:
    for start in range(0, len(indices), EVALUATION_BATCH):
        yield indices[start : start + EVALUATION_BATCH]


def _features(
    rgb: UInt8[Tensor, "batch 3 size size"],
) -> Float[Tensor, "batch features size size"]:
    """Blurred colors, and the same times the height in the image, -1 (bottom) .. 1."""
    size = rgb.shape[-1]
    pixels = rgb.float() / 255
    blurred = torch.cat(
        [
            F.interpolate(
                F.adaptive_avg_pool2d(pixels, min(side, size)),
                size=(size, size),
                mode="bilinear",
                align_corners=False,
            )
            for side in BLURS
        ],
        dim=1,
    )
    height = torch.linspace(1, -1, size)[:, None]
    return torch.cat([blurred, blurred * height], dim=1)
