"""The Frechet distance between two Gaussians of features (Heusel et al. 2017, arXiv 1706.08500)."""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import get_lapack_funcs

from thermal_search.errors import MetricError
from thermal_search.metrics.statistics import Array, Statistics

potrf, pocon, sygst = get_lapack_funcs(("potrf", "pocon", "sygst"), dtype=np.float64)

WELL_CONDITIONED = 1e-10
"""Reciprocal condition number from which a Cholesky factor is as exact as eigenvectors."""

TOLERATED_NOISE = 1e-6
"""If the error may exceed this bound, the trace comes from a singular value decomposition."""


@dataclass(frozen=True)
class Moments:
    """Mean [dimensions] and covariance [dimensions, dimensions], computed by another program."""

    mean: Array
    covariance: Array


Gaussian = Statistics | Moments


class FrechetReference:
    """The real images' side of the distance, factored once: covariance = factor @ factor.T.

    The distance needs the trace of the square root of a product of two covariances, A = X' X and
    B = F F'. It is the sum of the singular values of X F: no matrix root is computed, and the
    eigenvalue problem is as small as the smaller side's rank.
    """

    def __init__(self, real: Gaussian) -> None:
        self.mean = real.mean
        self.is_triangular = False
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
            cholesky = _cholesky(covariance)
            self.is_triangular = cholesky is not None
            self.factor = _eigenfactor(covariance) if cholesky is None else cholesky

    def distance(self, other: Gaussian) -> float:
        """Squared Frechet distance to `other`: 0 when equal, lower is better.

        Raises MetricError if either has fewer than two images, or the features are not of one
        network.
        """
        dimensions = len(self.factor)
        if len(other.mean) != dimensions:
            raise MetricError(
                f"Both sides need features of one network, but one has {dimensions} dimensions and "
                f"the other {len(other.mean)}: measure both with the same features."
            )
        if isinstance(other, Statistics):
            _require_two(other)
        # With a factor of low rank, even projecting many rows is cheaper than their covariance.
        is_low_rank = 2 * self.factor.shape[1] <= dimensions
        if (
            isinstance(other, Statistics)
            and other.holds_all_rows
            and (is_low_rank or other.count <= dimensions)
        ):
            deviations = other.deviations / np.sqrt(other.count - 1)
            trace = float(np.square(deviations).sum())
            trace_of_root = self._trace_of_root_of_rows(deviations)
        else:
            covariance = other.covariance
            trace = float(covariance.trace())
            trace_of_root = self._trace_of_root(covariance)
        means = float(np.square(self.mean - other.mean).sum())
        return max(means + self.trace + trace - 2 * trace_of_root, 0.0)

    def _trace_of_root_of_rows(self, deviations: Array) -> float:
        """The sum of the singular values of X F, for rows X whose sum is zero."""
        projected = deviations @ self.factor
        if len(projected) <= projected.shape[1]:
            # One eigenvalue is 0 because of that sum; its rounding error is left out.
            values = np.linalg.eigvalsh(projected @ projected.T)[1:]
        else:
            values = np.linalg.eigvalsh(projected.T @ projected)
        if _noise_of_roots(values) > TOLERATED_NOISE:
            return _sum_of_singular_values(projected)
        return _sum_of_roots(values)

    def _trace_of_root(self, covariance: Array) -> float:
        """The same sum, from X' X."""
        if self.is_triangular:
            # F' X'X F in a quarter of the operations of two products; fills the lower half only.
            product, _ = sygst(covariance.T, self.factor, itype=2, lower=1)
        else:
            product = self.factor.T @ (covariance @ self.factor)
        values = np.linalg.eigvalsh(product, UPLO="L")
        if _noise_of_roots(values) > TOLERATED_NOISE:
            return _sum_of_singular_values(_eigenfactor(covariance).T @ self.factor)
        return _sum_of_roots(values)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Squared Frechet distance between two Gaussians; 0 when equal, lower is better."""
    return FrechetReference(a).distance(b)


def _cholesky(covariance: Array) -> Array | None:
    """The lower triangle L with covariance = L L'; None if it would be too inexact."""
    factor, failed = potrf(covariance.T, lower=1)
    if failed:
        return None
    reciprocal, _ = pocon(factor, np.abs(covariance).sum(0).max(), uplo="L")
    return factor if reciprocal > WELL_CONDITIONED else None


def _eigenfactor(covariance: Array) -> Array:
    """F [dimensions, rank] with covariance = F F', for any rank."""
    values, vectors = np.linalg.eigh(covariance)
    significant = _above_noise(values)
    return vectors[:, significant] * np.sqrt(values[significant])


def _above_noise(values: Array) -> Array:
    """Whether each eigenvalue, in ascending order, exceeds the rounding error of its decomposition.

    The square root magnifies that error: 1e-16 of the largest becomes 1e-8, for each of thousands.
    """
    noise = max(values[-1], 0.0) * len(values) * np.finfo(values.dtype).eps
    return values > noise


def _noise_of_roots(values: Array) -> float:
    """How much the rounding errors of the eigenvalues can change the sum of their roots."""
    noise = values.max(initial=0.0) * np.finfo(values.dtype).eps
    values = values.clip(min=0)
    return float((np.sqrt(values + noise) - np.sqrt(values)).sum())


def _sum_of_roots(values: Array) -> float:
    return float(np.sqrt(values.clip(min=0)).sum())


def _sum_of_singular_values(matrix: Array) -> float:
    return float(np.linalg.svd(matrix, compute_uv=False).sum())


def _require_two(statistics: Statistics) -> None:
    if statistics.count < 2:
        raise MetricError(
            f"A Frechet distance needs at least 2 images on each side, but got {statistics.count}."
        )
