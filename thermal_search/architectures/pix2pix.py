"""pix2pix: Image-to-Image Translation with Conditional Adversarial Networks.

Isola et al., CVPR 2017. https://arxiv.org/abs/1611.07004

A U-Net generates the thermal image; a PatchGAN scores the (rgb, thermal) pair in patches of 70 x 70
pixels. Needs aligned pairs. The only noise is dropout, which stays active at test time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F

from thermal_search.architectures import translator
from thermal_search.architectures.translator import Translator, Turn, adam_players
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import ADVERSARIAL_LOSSES
from thermal_search.networks import PatchDiscriminator, UNet, initialize
from thermal_search.networks.patch import fitting_layers


@final
class Pix2Pix(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.Config):
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        """Adam's first decay rate, of both players; the second is 0.999."""

        l1_weight: float = 100.0
        """Weight of the mean absolute error; the adversarial term has weight 1."""

        gan_mode: Literal["vanilla", "lsgan"] = "vanilla"
        generator_width: int = 64
        """Channels after the first convolution; deeper layers double it, up to 8x."""

        discriminator_width: int = 64
        patch_layers: int = 3
        """Strided layers of the discriminator; fewer if the image is too small."""

        norm: Literal["batch", "instance"] = "batch"
        test_norm_stats: Literal["image", "running"] = "image"
        """Statistics of the generator's batch normalization at test time: each image's own, as in
        the paper (section 3.3), or the running averages of training."""

        dropout: float = 0.5
        test_dropout: bool = True
        """Whether dropout stays active at test time."""

        decay_start: float = 0.5
        """Fraction of the budget after which the learning rates fall linearly to 0."""

        crop_scale: float = 286 / 256
        """See `translator.Config`: the paper's random jitter, 286 to 256 pixels."""

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = initialize(
            UNet(
                size=config.size,
                width=config.generator_width,
                norm=config.norm,
                test_norm_stats=config.test_norm_stats,
                dropout=config.dropout,
                test_dropout=config.test_dropout,
            )
        )
        self.discriminator = initialize(
            PatchDiscriminator(
                in_channels=3 + 1,
                width=config.discriminator_width,
                layers=fitting_layers(config.patch_layers, config.size),
                norm=config.norm,
            )
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb)

    players = adam_players

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        loss = ADVERSARIAL_LOSSES[self.config.gan_mode]
        batch = next(batches)
        fake = self.generator(batch.rgb)

        # Two passes: in one batch, batch normalization would mix real and fake statistics.
        real_score = self.discriminator(torch.cat([batch.rgb, batch.thermal], dim=1))
        fake_score = self.discriminator(torch.cat([batch.rgb, fake.detach()], dim=1))
        # Halved, as in the paper, to slow the discriminator down relative to the generator.
        yield Turn(
            "discriminator", {"adversarial": 0.5 * loss.discriminator(real_score, fake_score)}
        )

        # Scored again: the discriminator has just been updated.
        fake_score = self.discriminator(torch.cat([batch.rgb, fake], dim=1))
        yield Turn(
            "generator",
            {
                "adversarial": loss.generator(fake_score),
                "l1": self.config.l1_weight * F.l1_loss(fake, batch.thermal),
            },
        )

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)
