"""The Frechet distance between two Gaussians of features (Heusel et al. 2017, arXiv 1706.08500)."""

from dataclasses import dataclass

import numpy as np

from thermal_search.errors import MetricError
from thermal_search.metrics.statistics import Array, Statistics


@dataclass(frozen=True)
class Moments:
    """Mean [dimensions] and covariance [dimensions, dimensions] that others have computed."""

    mean: Array
    covariance: Array


Gaussian = Statistics | Moments


class Reference:
    """The real images' side, factored once: covariance = factor @ factor.T.

    The distance needs the trace of the root of a product of two covariances, A and B = F F'. That
    is the sum of the singular values of X F, where A = X' X: no root of a matrix is formed, and the
    eigenvalue problem is as small as the smaller side's rank.
    """

    def __init__(self, real: Gaussian) -> None:
        self.mean = real.mean
        if isinstance(real, Statistics):
            _require_two(real)
        if isinstance(real, Statistics) and real.holds_all_rows and real.count < real.dimensions:
            deviations = real.deviations / np.sqrt(real.count - 1)
            self.trace = float(np.square(deviations).sum())
            values, vectors = np.linalg.eigh(deviations @ deviations.T)
            self.factor = deviations.T @ vectors[:, _above_noise(values)]
        else:
            covariance = real.covariance
            self.trace = float(covariance.trace())
            values, vectors = np.linalg.eigh(covariance)
            kept = _above_noise(values)
            self.factor = vectors[:, kept] * np.sqrt(values[kept])

    def distance(self, other: Gaussian) -> float:
        """Squared Frechet distance to `other`: 0 when equal, lower is better.

        MetricError where either has fewer than two images or the features are not of one network.
        """
        dimensions, rank = self.factor.shape
        if len(other.mean) != dimensions:
            raise MetricError(
                f"Both sides need features of one network, but one has {dimensions} dimensions and "
                f"the other {len(other.mean)}: measure both with the same features."
            )
        if isinstance(other, Statistics):
            _require_two(other)
        if isinstance(other, Statistics) and other.holds_all_rows and other.count <= dimensions:
            deviations = other.deviations / np.sqrt(other.count - 1)
            trace = float(np.square(deviations).sum())
            projected = deviations @ self.factor
            if other.count <= rank:
                # Deviations add up to nothing: one eigenvalue is 0, and its noise is left out.
                roots = _roots(projected @ projected.T)[1:]
            else:
                roots = _roots(projected.T @ projected)
        else:
            covariance = other.covariance
            trace = float(covariance.trace())
            roots = _roots(self.factor.T @ (covariance @ self.factor))
        means = float(np.square(self.mean - other.mean).sum())
        return max(means + self.trace + trace - 2 * float(roots.sum()), 0.0)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance between two Gaussians; 0 when equal, lower is better."""
    return Reference(a).distance(b)


def _above_noise(values: Array) -> Array:
    """Which eigenvalues, in rising order, stand out of the noise of their decomposition.

    Its root would count: 1e-16 of the largest becomes 1e-8, for each of thousands.
    """
    noise = max(values[-1], 0.0) * len(values) * np.finfo(values.dtype).eps
    return values > noise


def _roots(symmetric: Array) -> Array:
    return np.sqrt(np.linalg.eigvalsh(symmetric).clip(min=0))


def _require_two(statistics: Statistics) -> None:
    if statistics.count < 2:
        raise MetricError(
            f"A Frechet distance needs at least 2 images on each side, but got {statistics.count}."
        )
