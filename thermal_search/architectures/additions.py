"""What a search can add to architectures whose papers lack it. All of it is off by default."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from thermal_search.architectures.translator import Config
from thermal_search.images import Rgb, Thermal
from thermal_search.losses import pixel_loss, r1_penalty_at
from thermal_search.networks.condition import RgbEncoder
from thermal_search.networks.diff_augment import diff_augment
from thermal_search.networks.perceptual_loss import PerceptualNetwork, perceptual_loss


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(Config):
    """The field of `augmented`."""

    diff_augment: bool = False
    """Whether the discriminators score augmented images (see `diff_augment`). Not part of the
    papers."""


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(AugmentConfig):
    """For discriminators whose papers bound no gradient: those of the cross-entropy and the
    least-squares games."""

    spectral_norm: bool = False
    """Whether the discriminators have spectral normalization, beside the paper's own."""

    r1: bool = False
    """Whether the discriminators minimize R1, the gradient penalty at real images (`losses`)."""

    r1_gamma: float = 1.0
    """Twice the weight of R1. The score of an image is the mean over its patches."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r1 and self.coupling:
            raise ValueError(
                "r1 needs a discriminator whose score of an image depends on that image alone, but "
                f"got {self.coupling}, which compares the images of a batch: change it, or leave "
                "r1 off."
            )

    @property
    def coupling(self) -> str | None:
        """The setting with which a discriminator's score of an image depends on the other images of
        its batch; None if there is none."""
        return None


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig(Config):
    """For architectures that train on pairs: the fields of `perceptual_terms`."""

    perceptual_network: PerceptualNetwork = "none"
    """The network of a perceptual loss, which the generator also minimizes (see `perceptual_loss`):
    not the one that the search measures with. Not part of the paper."""

    perceptual_weight: float = 10.0
    """Weight of the perceptual loss. The adversarial term has weight 1."""

    @property
    def loss_networks(self) -> frozenset[str]:
        return frozenset({self.perceptual_network} - {"none"})


@dataclass(frozen=True, kw_only=True)
class PairedConfig(PerceptualConfig, AugmentConfig):
    """For paired architectures without a pixel loss: the fields of `similarity_terms` and
    `scored_images`."""

    l1: bool = False
    """Whether the generator also minimizes the L1 loss. Not part of the paper."""

    l1_weight: float = 100.0
    """Weight of the L1 loss. The adversarial term has weight 1."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig(PairedConfig):
    """For the eight of them whose generator decodes a latent and sees the RGB image at each
    resolution."""

    rgb_encoder: RgbEncoder = "pooled"
    """How the generator sees the RGB image (see `ConditionPyramid`): pooled to each resolution and
    convolved once, or through an encoder of strided convolutions. Not part of the papers, which
    have no such image. Without effect if `condition_channels` is 0."""


def similarity_terms(config: PairedConfig, fake: Thermal, real: Thermal) -> dict[str, Tensor]:
    """The generator's weighted loss terms that compare its images with the real ones: `l1` and
    `perceptual`, if they are on."""
    terms: dict[str, Tensor] = {}
    if config.l1:
        terms["l1"] = pixel_loss(fake, real, config.l1_weight)
    return terms | perceptual_terms(config, fake, real)


def perceptual_terms(config: PerceptualConfig, fake: Thermal, real: Thermal) -> dict[str, Tensor]:
    """The generator's weighted perceptual loss, if it is on."""
    if config.perceptual_network == "none":
        return {}
    loss = perceptual_loss(config.perceptual_network, fake, real)
    return {"perceptual": config.perceptual_weight * loss}


def r1_terms(
    config: DiscriminatorConfig, real: Tensor, score: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """A discriminator's weighted R1 at `real` images as they are, if it is on. `score` gives each
    image one score."""
    if not config.r1:
        return {}
    return {"r1": 0.5 * config.r1_gamma * r1_penalty_at(real, score)}


def augmented(config: AugmentConfig, images: Tensor, channels: int = 1) -> Tensor:
    """What a discriminator scores in place of `images`, of which the last `channels` are not a
    condition: augmented images, if `diff_augment` is on."""
    return diff_augment(images, channels) if config.diff_augment else images


def scored_images(config: AugmentConfig, rgb: Rgb, thermal: Thermal) -> tuple[Rgb, Thermal]:
    """The pairs that a discriminator scores, if it takes both images apart."""
    if not config.diff_augment:
        return rgb, thermal
    rgb, thermal = augmented(config, torch.cat([rgb, thermal], dim=1)).split([3, 1], dim=1)
    return rgb, thermal
