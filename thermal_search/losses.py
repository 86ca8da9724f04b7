"""Adversarial losses of logits or scores of any shape, always in float32."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AdversarialLoss:
    """The losses of the two sides of a game."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    """(real score, fake score) -> the loss of the discriminator or critic."""

    generator: Callable[[Tensor], Tensor]
    """fake score -> the loss of the generator."""


def _cross_entropy(score: Tensor, target: float) -> Tensor:
    score = score.float()
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, target))


def _squares(score: Tensor, target: float) -> Tensor:
    return (score.float() - target).square().mean()


cross_entropy = AdversarialLoss(
    discriminator=lambda real, fake: _cross_entropy(real, 1.0) + _cross_entropy(fake, 0.0),
    generator=lambda fake: _cross_entropy(fake, 1.0),
)
"""The non-saturating loss of Goodfellow et al. 2014 (arXiv 1406.2661), section 3."""

least_squares = AdversarialLoss(
    discriminator=lambda real, fake: _squares(real, 1.0) + _squares(fake, 0.0),
    generator=lambda fake: _squares(fake, 1.0),
)
"""LSGAN, Mao et al. 2017 (arXiv 1611.04076), with targets 0 and 1 as in CycleGAN."""

wasserstein = AdversarialLoss(
    discriminator=lambda real, fake: fake.float().mean() - real.float().mean(),
    generator=lambda fake: -fake.float().mean(),
)
"""WGAN, Arjovsky et al. 2017 (arXiv 1701.07875): a difference of mean scores."""

hinge = AdversarialLoss(
    discriminator=lambda real, fake: (
        F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()
    ),
    generator=lambda fake: -fake.float().mean(),
)
"""Lim & Ye 2017 (arXiv 1705.02894), as in SAGAN and BigGAN."""

minimax = AdversarialLoss(
    discriminator=cross_entropy.discriminator,
    generator=lambda fake: -_cross_entropy(fake, 0.0),
)
"""The minimax game of Goodfellow et al. 2014; its generator's gradient vanishes while it loses."""

ADVERSARIAL_LOSSES = {
    "vanilla": cross_entropy,
    "minimax": minimax,
    "lsgan": least_squares,
    "hinge": hinge,
}


def discriminator_loss(
    loss: AdversarialLoss, real: Sequence[Tensor], fake: Sequence[Tensor]
) -> Tensor:
    """The sum of the discriminator's losses over the scores of several scales."""
    return torch.stack(
        [loss.discriminator(*scores) for scores in zip(real, fake, strict=True)]
    ).sum()


def generator_loss(loss: AdversarialLoss, fake: Sequence[Tensor]) -> Tensor:
    """The sum of the generator's losses over the scores of several scales."""
    return torch.stack([loss.generator(score) for score in fake]).sum()


def pixel_loss(fake: Tensor, real: Tensor, weight: float) -> Tensor:
    """`weight` times the L1 loss: the mean absolute difference, in network range."""
    return weight * F.l1_loss(fake.float(), real)


def smoothed_cross_entropy(real: Tensor, fake: Tensor, real_label: float) -> Tensor:
    """The discriminator loss with one-sided label smoothing (Salimans et al. 2016, section 3.4).

    `real_label` is the target of real images, at most 1. The target of generated images stays 0:
    smoothing it would shift the optimum.
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
    """The mean squared difference of the critic's gradient norm from `target`.

    Gulrajani et al. 2017 (arXiv 1704.00028): one random point on each line from `real` to `fake`
    [batch, 1, height, width]. Only the thermal image is interpolated; `critic` holds the RGB image
    fixed. Runs in float32, because the penalty is differentiated twice. The critic must not couple
    the images of a batch (no batch normalization). `one_sided` penalizes only larger norms.
    """
    weight = torch.rand(len(real), 1, 1, 1, device=real.device)
    mixed = torch.lerp(real.detach().float(), fake.detach().float(), weight).requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        score = critic(mixed)
    # The square root has no gradient at 0.
    norm = _squared_gradient(score, mixed).sum(1).add(1e-12).sqrt()
    excess = norm - target
    if one_sided:
        excess = excess.relu()
    return excess.square().mean()


def r1_penalty(score: Tensor, real: Tensor) -> Tensor:
    """R1: the mean squared gradient norm of a discriminator's `score` at real images.

    Mescheder et al. 2018 (arXiv 1801.04406). `real` must require gradients, and `score` must come
    from a float32 forward pass over it. Each score must depend on its own image alone (no batch
    normalization): the gradient at an image would contain the scores of the others.
    """
    return _squared_gradient(score, real).sum(1).mean()


def r1_penalty_at(real: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """R1 at `real` images, by a forward pass of its own; `score` gives each image one score."""
    real = real.detach().requires_grad_(True)
    with torch.autocast(real.device.type, enabled=False):
        return r1_penalty(score(real), real)


def patch_r1_penalty(discriminator: Callable[[Tensor], Sequence[Tensor]], real: Tensor) -> Tensor:
    """R1 at `real` images of a discriminator that returns the patches' scores at each scale.

    An image's score is the mean over its patches, and the sum over the scales.
    """

    def score(images: Tensor) -> Tensor:
        return torch.stack([patches.mean((1, 2, 3)) for patches in discriminator(images)]).sum(0)

    return r1_penalty_at(real, score)


def _squared_gradient(score: Tensor, images: Tensor) -> Tensor:
    """The gradient of each image's score by its pixels, squared: [batch, pixels]."""
    (gradient,) = torch.autograd.grad(score.sum(), images, create_graph=True)
    return gradient.flatten(1).square()
