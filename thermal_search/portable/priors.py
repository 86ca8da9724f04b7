"""How to draw a generator's latent vectors without this package."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thermal_search.architectures.translator import Translator

CHECKED_ROWS = 4
"""Latent vectors that a prior must draw as the translator does."""


@dataclass(frozen=True)
class Prior:
    """The distribution of every number of a latent vector."""

    words: str
    torch_code: str
    """An expression for [1, {size}] draws with the torch generator `random`; the same numbers as
    the translator draws."""

    numpy_code: str
    """An expression for [1, {size}] draws with the numpy generator `random`; the same distribution,
    other numbers."""

    draw: Callable[[int, int, torch.Generator], Tensor]
    """Rows, numbers in a row, and the generator."""


def prior_of(translator: Translator) -> Prior | None:
    """The prior that draws exactly what the translator draws; None if it has no latent."""
    expected = translator.draw_latent(CHECKED_ROWS, torch.Generator().manual_seed(0))
    if expected is None:
        return None
    for prior in _candidates(getattr(translator.config, "truncation", 0.0)):
        random = torch.Generator().manual_seed(0)
        rows, length = expected.shape
        if torch.equal(prior.draw(rows, length, random), expected):
            return prior
    raise AssertionError(f"{type(translator).__name__} draws its latent from an unknown prior")


def _candidates(limit: float) -> list[Prior]:
    def normal(rows: int, size: int, random: torch.Generator) -> Tensor:
        return torch.randn(rows, size, generator=random)

    def uniform(low: float, scale: float) -> Callable[[int, int, torch.Generator], Tensor]:
        return lambda rows, size, random: (
            (torch.rand(rows, size, generator=random) * 2 - 1) * scale
            if low < 0
            else torch.rand(rows, size, generator=random)
        )

    def truncated(rows: int, size: int, random: torch.Generator) -> Tensor:
        return nn.init.trunc_normal_(torch.empty(rows, size), a=-limit, b=limit, generator=random)

    torch_uniform, numpy_uniform = (
        "torch.rand(1, {size}, generator=random)",
        'random.random((1, {size}), "float32")',
    )
    priors = [
        Prior(
            "N(0, 1)",
            "torch.randn(1, {size}, generator=random)",
            'random.standard_normal((1, {size}), "float32")',
            normal,
        ),
        Prior("uniform in 0 .. 1", torch_uniform, numpy_uniform, uniform(0, 1)),
        Prior(
            "uniform in -1 .. 1",
            f"{torch_uniform} * 2 - 1",
            f"{numpy_uniform} * 2 - 1",
            uniform(-1, 1),
        ),
        Prior(
            "uniform in -1.732 .. 1.732 (unit variance)",
            f"({torch_uniform} * 2 - 1) * 3**0.5",
            f"({numpy_uniform} * 2 - 1) * numpy.float32(3**0.5)",
            uniform(-1, 3**0.5),
        ),
    ]
    if limit > 0:
        priors.append(
            Prior(
                f"N(0, 1), truncated to -{limit:g} .. {limit:g}",
                f"torch.nn.init.trunc_normal_(torch.empty(1, {{size}}), a=-{limit:g}, "
                f"b={limit:g}, generator=random)",
                f"scipy.stats.truncnorm.rvs(-{limit:g}, {limit:g}, size=(1, {{size}}), "
                'random_state=random).astype("float32")',
                truncated,
            )
        )
    return priors
