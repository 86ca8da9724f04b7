"""CycleGAN: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks.

Zhu et al., ICCV 2017. https://arxiv.org/abs/1703.10593

Two generators, RGB -> thermal and back, must undo each other; a discriminator a domain judges what
they paint. Needs no pairs: it never looks at which frames belong together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.translator import OptimizerConfig, Player, Translator, Turn
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import ADVERSARIAL_LOSSES
from thermal_search.networks import ImagePool, PatchDiscriminator, ResidualTranslator, initialize
from thermal_search.networks.patch import fitting_layers


@final
class CycleGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.Config):
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        """Adam's first decay rate, of both players; the second is 0.999."""

        cycle_weight: float = 10.0
        """Weight of what is lost on the way there and back."""

        identity_ratio: float = 0.5
        """Weight of leaving a domain's own images alone, as a share of `cycle_weight`."""

        pool_size: int = 50
        """Painted images each discriminator is reminded of; 0: none."""

        blocks: int = 0
        """Residual blocks; 0: the paper's choice for the size, 9 from 256 pixels and 6 below."""

        gan_mode: Literal["vanilla", "lsgan"] = "lsgan"
        generator_width: int = 64
        discriminator_width: int = 64
        patch_layers: int = 3
        """Strided layers of the discriminators; fewer where the image is too small for them."""

        decay_start: float = 0.5
        """Share of the budget after which the learning rates fall linearly to 0."""

    config: Config
    needs_pairs: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        blocks = config.blocks or (9 if config.size >= 256 else 6)
        width = config.generator_width
        self.generator = initialize(ResidualTranslator(out_channels=1, width=width, blocks=blocks))
        self.return_generator = initialize(
            ResidualTranslator(out_channels=3, width=width, blocks=blocks)
        )
        self.thermal_discriminator = self._discriminator(channels=1)
        self.rgb_discriminator = self._discriminator(channels=3)
        self.thermal_pool = ImagePool(config.pool_size)
        self.rgb_pool = ImagePool(config.pool_size)

    def _discriminator(self, channels: int) -> PatchDiscriminator:
        config = self.config
        return initialize(
            PatchDiscriminator(
                in_channels=channels,
                width=config.discriminator_width,
                layers=fitting_layers(config.patch_layers, config.size),
                norm="instance",
            )
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb)

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (self.config.beta1, 0.999)
        return {
            "generators": Player(
                (self.generator, self.return_generator),
                OptimizerConfig(algorithm="adam", lr=config.generator_lr, betas=betas),
            ),
            "discriminators": Player(
                (self.thermal_discriminator, self.rgb_discriminator),
                OptimizerConfig(algorithm="adam", lr=config.discriminator_lr, betas=betas),
            ),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config, game = self.config, ADVERSARIAL_LOSSES[self.config.gan_mode]
        batch = next(batches)
        rgb, thermal = batch.rgb, batch.thermal
        # Both generators look at three channels; thermal is repeated.
        thermal_seen = thermal.expand(-1, 3, -1, -1)

        # What one network sees goes through it as one batch as far as it is known. It normalizes
        # each image by itself, so nothing changes but the time.
        weight = config.cycle_weight * config.identity_ratio
        identity: dict[str, Tensor] = {}
        if weight:
            fake_thermal, same_thermal = through(self.generator, rgb, thermal_seen)
            fake_rgb, same_rgb, returned_rgb = through(
                self.return_generator, thermal_seen, rgb, fake_thermal.expand(-1, 3, -1, -1)
            )
            identity["identity_thermal"] = weight * F.l1_loss(same_thermal, thermal)
            identity["identity_rgb"] = weight * F.l1_loss(same_rgb, rgb)
        else:
            fake_thermal = self.generator(rgb)
            fake_rgb, returned_rgb = through(
                self.return_generator, thermal_seen, fake_thermal.expand(-1, 3, -1, -1)
            )
        returned_thermal = self.generator(fake_rgb)
        terms = {
            "adversarial_thermal": game.generator(self.thermal_discriminator(fake_thermal)),
            "adversarial_rgb": game.generator(self.rgb_discriminator(fake_rgb)),
            "cycle_rgb": config.cycle_weight * F.l1_loss(returned_rgb, rgb),
            "cycle_thermal": config.cycle_weight * F.l1_loss(returned_thermal, thermal),
        }
        terms |= identity
        yield Turn("generators", terms)

        fake_thermal = self.thermal_pool.swap(fake_thermal)
        fake_rgb = self.rgb_pool.swap(fake_rgb)
        judge_thermal = game.discriminator(
            *through(self.thermal_discriminator, thermal, fake_thermal)
        )
        judge_rgb = game.discriminator(*through(self.rgb_discriminator, rgb, fake_rgb))
        # Halved, as in the paper, so that the discriminators learn slower than the generators.
        yield Turn("discriminators", {"thermal": 0.5 * judge_thermal, "rgb": 0.5 * judge_rgb})

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)


def through(network: nn.Module, *batches: Tensor) -> tuple[Tensor, ...]:
    """What `network` makes of each of the batches, by one pass over all of them."""
    return network(torch.cat(batches)).split([len(batch) for batch in batches])
