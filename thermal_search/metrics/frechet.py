"""The Frechet distance between two Gaussians of features (Heusel et al. 2017, arXiv 1706.08500)."""

import torch
from torch import Tensor

from thermal_search.metrics.statistics import Statistics


class Reference:
    """The real images' side, factored once: covariance = factor @ factor.T."""

    def __init__(self, statistics: Statistics) -> None:
        _require_two(statistics)
        self.count = statistics.count
        self.mean = statistics.mean
        covariance = statistics.covariance
        self.trace = covariance.trace()
        # Few images span few dimensions: the factor is as narrow as the covariance's rank, and
        # what is below the noise of the decomposition is cut rather than square-rooted.
        values, vectors = torch.linalg.eigh(covariance)
        noise = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
        kept = values > noise
        self.factor = vectors[:, kept] * values[kept].sqrt()

    def distance(self, statistics: Statistics) -> float:
        """Squared Frechet distance to `statistics`: 0 when equal, lower is better."""
        _require_two(statistics)
        covariance = statistics.covariance
        # The eigenvalues of A B, without forming a matrix root: those of F' A F, where B = F F'.
        product = self.factor.T @ covariance @ self.factor
        roots = torch.linalg.eigvalsh(_symmetric(product)).clamp(min=0).sqrt()
        means = (self.mean - statistics.mean).square().sum()
        distance = means + self.trace + covariance.trace() - 2 * roots.sum()
        return float(distance.clamp(min=0))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Squared Frechet distance between two Gaussians; 0 when equal, lower is better."""
    return Reference(a).distance(b)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def _require_two(statistics: Statistics) -> None:
    if statistics.count < 2:
        raise ValueError(
            f"A Frechet distance needs at least 2 images on each side, but got {statistics.count}."
        )
