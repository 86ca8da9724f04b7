"""Adversarial objectives, from logits or scores of any shape, always in float32."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """What the two sides of a game minimise."""

    judge: Callable[[Tensor, Tensor], Tensor]
    """(real score, fake score) -> the loss of the side that tells them apart."""

    fool: Callable[[Tensor], Tensor]
    """fake score -> the loss of the side that paints."""


def _cross_entropy(score: Tensor, target: float) -> Tensor:
    score = score.float()
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, target))


def _squares(score: Tensor, target: float) -> Tensor:
    return (score.float() - target).square().mean()


cross_entropy = Objective(
    judge=lambda real, fake: _cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0),
    fool=lambda fake: _cross_entropy(fake, 1.0),
)
"""The non-saturating game of Goodfellow et al. 2014 (arXiv 1406.2661), section 3."""

least_squares = Objective(
    judge=lambda real, fake: _squares(real, 1.0) + _squares(fake, 0.0),
    fool=lambda fake: _squares(fake, 1.0),
)
"""Mao et al. 2017 (arXiv 1611.04076) with targets 0 and 1, as CycleGAN uses it."""

wasserstein = Objective(
    judge=lambda real, fake: fake.float().mean() - real.float().mean(),
    fool=lambda fake: -fake.float().mean(),
)
"""Arjovsky et al. 2017 (arXiv 1701.07875): a difference of means; no sigmoid, no logarithm."""

OBJECTIVES = {"vanilla": cross_entropy, "lsgan": least_squares, "wasserstein": wasserstein}
