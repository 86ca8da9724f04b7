"""pix2pix: Image-to-Image Translation with Conditional Adversarial Networks.

Isola et al., CVPR 2017. https://arxiv.org/abs/1611.07004

A U-Net generates the thermal image; a PatchGAN scores the (rgb, thermal) pair in patches of 70 x 70
pixels. Needs aligned pairs. The only noise is dropout, which stays active at test time.

Not part of the paper, and off by default: CycleGAN's residual generator; several scales and feature
matching (pix2pixHD, Wang et al. 2018, arXiv 1711.11585); a perceptual loss; the hinge loss,
spectral normalization, R1 and DiffAugment for the discriminator.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.additions import (
    DiscriminatorConfig,
    PerceptualConfig,
    augmented,
    perceptual_terms,
)
from thermal_search.architectures.translator import Translator, Turn, adam_players
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import (
    ADVERSARIAL_LOSSES,
    discriminator_loss,
    generator_loss,
    patch_r1_penalty,
)
from thermal_search.networks import ResidualTranslator, UNet, initialize
from thermal_search.networks.patch import feature_matching_loss, patch_discriminators
from thermal_search.networks.residual import published_blocks
from thermal_search.networks.spectral_norm import apply_spectral_norm


@final
class Pix2Pix(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DiscriminatorConfig, PerceptualConfig):
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        """Adam's first decay rate, of both players; the second is 0.999."""

        l1_weight: float = 100.0
        """Weight of the mean absolute error; the adversarial term has weight 1."""

        gan_mode: Literal["vanilla", "lsgan", "hinge"] = "vanilla"
        generator_network: Literal["unet", "resnet"] = "unet"
        """The paper's U-Net, or CycleGAN's residual network, which has instance normalization and
        no dropout."""

        blocks: int = 0
        """Residual blocks of the residual network; 0: CycleGAN's choice for the size, 9 from 256
        pixels and 6 below."""

        generator_width: int = 64
        """Channels after the first convolution; deeper layers double it, up to 8x."""

        discriminator_width: int = 64
        patch_layers: int = 3
        """Strided layers of the discriminator; fewer if the image is too small."""

        scales: int = 1
        """Scales of the discriminator, each half as large as the last."""

        feature_matching: bool = False
        """Whether the generator also matches the discriminator's features of real images."""

        feature_matching_weight: float = 10.0
        norm: Literal["batch", "instance"] = "batch"
        """Normalization of the U-Net."""

        discriminator_norm: Literal["batch", "instance"] = "batch"
        """Normalization of the discriminator. Instance normalization keeps the images of a batch
        apart, so that R1 is one image's own."""

        test_norm_stats: Literal["image", "running"] = "image"
        """Statistics of the U-Net's batch normalization at test time: each image's own, as in
        the paper (section 3.3), or the running averages of training."""

        dropout: float = 0.5
        test_dropout: bool = True
        """Whether dropout stays active at test time."""

        decay_start: float = 0.5
        """Fraction of the budget after which the learning rates fall linearly to 0."""

        crop_scale: float = 286 / 256
        """See `translator.Config`: the paper's random jitter, 286 to 256 pixels."""

        @property
        def coupling(self) -> str | None:
            return "discriminator_norm=batch" if self.discriminator_norm == "batch" else None

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = initialize(self._generator())
        self.discriminator = initialize(
            patch_discriminators(
                config.scales,
                in_channels=3 + 1,
                size=config.size,
                width=config.discriminator_width,
                layers=config.patch_layers,
                norm=config.discriminator_norm,
            )
        )
        if config.spectral_norm:
            apply_spectral_norm(self.discriminator)

    def _generator(self) -> nn.Module:
        config = self.config
        if config.generator_network == "resnet":
            blocks = config.blocks or published_blocks(config.size)
            return ResidualTranslator(out_channels=1, width=config.generator_width, blocks=blocks)
        return UNet(
            size=config.size,
            width=config.generator_width,
            norm=config.norm,
            test_norm_stats=config.test_norm_stats,
            dropout=config.dropout,
            test_dropout=config.test_dropout,
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb)

    @property
    def size_multiple(self) -> int:
        if self.config.generator_network == "resnet":
            return ResidualTranslator.DOWNSAMPLING
        return self.config.size  # the U-Net's bottleneck has at least one pixel

    players = adam_players

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config, loss = self.config, ADVERSARIAL_LOSSES[self.config.gan_mode]
        batch = next(batches)
        rgb, thermal = batch.rgb, batch.thermal
        fake = self.generator(rgb)

        # Two passes: in one batch, batch normalization would mix real and fake statistics.
        real_scores, fake_scores = self._scores(rgb, thermal), self._scores(rgb, fake.detach())
        # Halved, as in the paper, to slow the discriminator down relative to the generator.
        terms = {"adversarial": 0.5 * discriminator_loss(loss, real_scores, fake_scores)}
        if config.r1:
            penalty = patch_r1_penalty(lambda real: self.discriminator(_pair(rgb, real)), thermal)
            terms["r1"] = 0.5 * config.r1_gamma * penalty
        yield Turn("discriminator", terms)

        # Scored again: the discriminator has just been updated.
        terms = {
            "adversarial": generator_loss(loss, self._scores(rgb, fake)),
            "l1": config.l1_weight * F.l1_loss(fake, thermal),
            **perceptual_terms(config, fake, thermal),
        }
        if config.feature_matching:
            terms["feature_matching"] = config.feature_matching_weight * feature_matching_loss(
                self.discriminator, _pair(rgb, thermal), _pair(rgb, fake)
            )
        yield Turn("generator", terms)

    def _scores(self, rgb: Rgb, thermal: Thermal) -> list[Tensor]:
        """The patches' scores at each scale."""
        return self.discriminator(augmented(self.config, _pair(rgb, thermal)))

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)


def _pair(rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch 4 height width"]:
    return torch.cat([rgb, thermal], dim=1)
