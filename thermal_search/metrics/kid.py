"""The Kernel Inception Distance (KID; Binkowski et al. 2018, arXiv 1801.01401)."""

from dataclasses import dataclass

import numpy as np

from thermal_search.errors import MetricError
from thermal_search.metrics.statistics import Array, Statistics

CHUNK = 1024
"""Rows of a kernel matrix in memory at once."""


@dataclass(frozen=True)
class KID:
    value: float
    """Unbiased, so it can be negative for similar sets; lower is better."""

    std: float | None
    """The standard error of `value`, over samples of images from the same distributions; None if a
    side has only two images."""


class KIDReference:
    """The real images' side of the distance, whose kernel sums are computed once.

    KID is the squared maximum mean discrepancy with the kernel (x.y / dimensions + 1)^3, over all
    pairs of images at once: the common average over subsets has the same expectation and a larger
    variance. Of more images than are retained as rows (10,000), it is measured on the retained
    rows, a random sample, and the standard error is that of so many.
    """

    def __init__(self, real: Statistics) -> None:
        _require_two(real)
        self.rows = real.rows.double().numpy()
        self.within = _within(self.rows)

    def distance(self, generated: Statistics) -> KID:
        """KID between the real images and `generated`.

        Raises MetricError for fewer than two images, or features of another network. The standard
        error is the jackknife's: each image of either set is left out in turn. It needs only the
        sums of the kernel's rows.
        """
        _require_two(generated)
        rows = generated.rows.double().numpy()
        if rows.shape[1] != self.rows.shape[1]:
            raise MetricError(
                f"Both sides need features of one network, but one has {self.rows.shape[1]} "
                f"dimensions and the other {rows.shape[1]}: measure both with the same features."
            )
        across, across_real = _across(rows, self.rows)
        within, within_real = _within(rows), self.within
        n, m = len(rows), len(self.rows)
        mean_generated = within.sum() / (n * (n - 1))
        mean_real = within_real.sum() / (m * (m - 1))
        mean_across = across.sum() / (n * m)
        value = float(mean_generated + mean_real - 2 * mean_across)
        if min(n, m) < 3:
            return KID(value, None)
        without_generated = (
            (within.sum() - 2 * within) / ((n - 1) * (n - 2))
            + mean_real
            - 2 * (across.sum() - across) / ((n - 1) * m)
        )
        without_real = (
            mean_generated
            + (within_real.sum() - 2 * within_real) / ((m - 1) * (m - 2))
            - 2 * (across.sum() - across_real) / (n * (m - 1))
        )
        variance = (n - 1) * without_generated.var() + (m - 1) * without_real.var()
        return KID(value, float(np.sqrt(variance)))


def _within(rows: Array) -> Array:
    """For each row, the sum of its kernel with all other rows of the set: [rows]."""
    with_itself = _kernel((rows * rows).sum(1), rows.shape[1])
    return _across(rows, rows)[0] - with_itself


def _across(a: Array, b: Array) -> tuple[Array, Array]:
    """The kernel's sums over `b` for each row of `a`, and over `a` for each row of `b`."""
    of_a, of_b = np.empty(len(a)), np.zeros(len(b))
    for start in range(0, len(a), CHUNK):
        kernel = _kernel(a[start : start + CHUNK] @ b.T, a.shape[1])
        of_a[start : start + CHUNK] = kernel.sum(1)
        of_b += kernel.sum(0)
    return of_a, of_b


def _kernel(products: Array, dimensions: int) -> Array:
    base = products / dimensions + 1
    return base * base * base


def _require_two(statistics: Statistics) -> None:
    if statistics.count < 2:
        raise MetricError(f"KID needs at least 2 images on each side, but got {statistics.count}.")
