"""Adversarial objectives, from logits or scores of any shape, always in float32."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """What the two sides of a game minimize."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real score, fake score) -> the loss of the side that tells them apart."""

    generator: Callable[[Tensor], Tensor]
    """fake score -> the loss of the side that paints."""


def _cross_entropy(score: Tensor, target: float) -> Tensor:
    score = score.float()
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, target))


def _squares(score: Tensor, target: float) -> Tensor:
    return (score.float() - target).square().mean()


cross_entropy = AdversarialLoss(
    discriminator=lambda real, fake: _cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0),
    generator=lambda fake: _cross_entropy(fake, 1.0),
)
"""The non-saturating game of Goodfellow et al. 2014 (arXiv 1406.2661), section 3."""

least_squares = AdversarialLoss(
    discriminator=lambda real, fake: _squares(real, 1.0) + _squares(fake, 0.0),
    generator=lambda fake: _squares(fake, 1.0),
)
"""Mao et al. 2017 (arXiv 1611.04076) with targets 0 and 1, as CycleGAN uses it."""

wasserstein = AdversarialLoss(
    discriminator=lambda real, fake: fake.float().mean() - real.float().mean(),
    generator=lambda fake: -fake.float().mean(),
)
"""Arjovsky et al. 2017 (arXiv 1701.07875): a difference of means; no sigmoid, no logarithm."""

minimax = AdversarialLoss(
    discriminator=cross_entropy.discriminator,
    generator=lambda fake: -_cross_entropy(fake, 0.0),
)
"""The game as Goodfellow et al. 2014 state it; its generator learns little while it loses."""

ADVERSARIAL_LOSSES = {"vanilla": cross_entropy, "minimax": minimax, "lsgan": least_squares}


def pixel_loss(fake: Tensor, real: Tensor, weight: float) -> Tensor:
    """`weight` times the mean absolute difference, in network range."""
    return weight * F.l1_loss(fake.float(), real)


def smoothed_cross_entropy(real: Tensor, fake: Tensor, real_label: float) -> Tensor:
    """A judge's loss whose target for real images is below 1 (Salimans et al. 2016, section 3.4).

    One-sided: the target for painted images stays exactly 0, or the optimum would shift.
    """
    return _cross_entropy(real, real_label) + _cross_entropy(fake, 0.0)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    *,
    one_sided: bool = False,
    target: float = 1.0,
) -> Tensor:
    """How far the critic's slope is from `target` between real and painted images, squared.

    Gulrajani et al. 2017 (arXiv 1704.00028): one random point on each line from `real` to `fake`
    [batch, 1, height, width]. Only the thermal image is moved; the RGB image that `critic` holds
    fixed is the same at both ends. Runs in float32: the penalty is differentiated twice. The
    critic must not couple the images of a batch (no batch normalization).
    """
    place = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real.detach().float(), fake.detach().float(), place).requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        score = critic(between)
    slope = (
        _squared_gradient(score, between).sum(1).add(1e-12).sqrt()
    )  # the root of 0 has no gradient
    excess = slope - target
    if one_sided:
        excess = excess.relu()
    return excess.square().mean()


def r1_penalty(score: Tensor, real: Tensor) -> Tensor:
    """R1: the squared slope of a discriminator's `score` at real images, averaged.

    Mescheder et al. 2018 (arXiv 1801.04406). `real` must require its gradient, and the score must
    come from a float32 pass over it.
    """
    return _squared_gradient(score, real).sum(1).mean()


def _squared_gradient(score: Tensor, images: Tensor) -> Tensor:
    """Squared entries of the gradient of each image's score, [batch, pixels]."""
    (gradient,) = torch.autograd.grad(score.sum(), images, create_graph=True)
    return gradient.flatten(1).square()


hinge = AdversarialLoss(
    discriminator=lambda real, fake: (
        F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()
    ),
    generator=lambda fake: -fake.float().mean(),
)
"""Lim & Ye 2017 (arXiv 1705.02894), as SAGAN and BigGAN use it."""
