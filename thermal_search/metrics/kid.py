"""The Kernel Inception Distance (Binkowski et al. 2018, arXiv 1801.01401)."""

from dataclasses import dataclass

import numpy as np

from thermal_search.errors import MetricError
from thermal_search.metrics.statistics import Array, Statistics

CHUNK = 1024
"""Rows of a kernel matrix in memory at once."""


@dataclass(frozen=True)
class KernelDistance:
    value: float
    """Unbiased, so it can be below 0 where both sets look alike; lower is better."""

    std: float | None
    """Its standard error: how much it would scatter over other images of the same kind; None where
    there are only two images on a side."""


class KernelReference:
    """The real images' side of the distance, summed once.

    The squared maximum mean discrepancy with the kernel (x.y / dimensions + 1)^3, over all pairs
    of images at once: an average over subsets of them has the same expectation and scatters more.
    Of more images than are kept as rows (10,000), it is that of the rows kept, a random choice: the
    standard error is that of so many.
    """

    def __init__(self, real: Statistics) -> None:
        _require_two(real)
        self.rows = real.rows.double().numpy()
        self.within = _within(self.rows)

    def distance(self, painted: Statistics) -> KernelDistance:
        """MetricError where there are fewer than two images, or features of another network.

        The spread is the jackknife's: each image in turn is left out, of both sets. It needs the
        sums of the kernel's rows alone.
        """
        _require_two(painted)
        rows = painted.rows.double().numpy()
        if rows.shape[1] != self.rows.shape[1]:
            raise MetricError(
                f"Both sides need features of one network, but one has {self.rows.shape[1]} "
                f"dimensions and the other {rows.shape[1]}: measure both with the same features."
            )
        across, across_real = _across(rows, self.rows)
        within, within_real = _within(rows), self.within
        n, m = len(rows), len(self.rows)
        of_painted = within.sum() / (n * (n - 1))
        of_real = within_real.sum() / (m * (m - 1))
        between = across.sum() / (n * m)
        value = float(of_painted + of_real - 2 * between)
        if min(n, m) < 3:
            return KernelDistance(value, None)
        without_painted = (
            (within.sum() - 2 * within) / ((n - 1) * (n - 2))
            + of_real
            - 2 * (across.sum() - across) / ((n - 1) * m)
        )
        without_real = (
            of_painted
            + (within_real.sum() - 2 * within_real) / ((m - 1) * (m - 2))
            - 2 * (across.sum() - across_real) / (n * (m - 1))
        )
        variance = (n - 1) * without_painted.var() + (m - 1) * without_real.var()
        return KernelDistance(value, float(np.sqrt(variance)))


def _within(rows: Array) -> Array:
    """Sums of a set's own kernel over all others of the set: [rows]."""
    with_itself = _kernel((rows * rows).sum(1), rows.shape[1])
    return _across(rows, rows)[0] - with_itself


def _across(a: Array, b: Array) -> tuple[Array, Array]:
    """Sums of the kernel between two sets, for each row of `a` and for each row of `b`."""
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
        raise MetricError(
            f"A kernel distance needs at least 2 images on each side, but got {statistics.count}."
        )
