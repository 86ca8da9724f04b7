"""CycleGAN: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks.

Zhu et al., ICCV 2017. https://arxiv.org/abs/1703.10593

Two generators, RGB -> thermal and thermal -> RGB, must invert each other; each domain has a
discriminator. Needs no pairs: no loss compares the RGB and the thermal image of a batch.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.additions import DiscriminatorConfig, augmented
from thermal_search.architectures.translator import Player, Translator, Turn, adam_player
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import ADVERSARIAL_LOSSES, patch_r1_penalty
from thermal_search.networks import ImagePool, PatchDiscriminator, ResidualTranslator, initialize
from thermal_search.networks.patch import fitting_layers
from thermal_search.networks.residual import published_blocks


@final
class CycleGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DiscriminatorConfig):
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        """Adam's first decay rate, of both players; the second is 0.999."""

        cycle_weight: float = 10.0
        """Weight of the mean absolute error of an image translated there and back."""

        identity_ratio: float = 0.5
        """Weight of the identity loss, relative to `cycle_weight`: a generator should not change
        images that are already of its output domain."""

        pool_size: int = 50
        """Previously generated images kept for each discriminator; 0: none."""

        blocks: int = 0
        """Residual blocks; 0: the paper's choice for the size, 9 from 256 pixels and 6 below."""

        gan_mode: Literal["vanilla", "lsgan", "hinge"] = "lsgan"
        """The paper uses lsgan."""

        generator_width: int = 64
        discriminator_width: int = 64
        patch_layers: int = 3
        """Strided layers of the discriminators; fewer if the image is too small."""

        decay_start: float = 0.5
        """Fraction of the budget after which the learning rates fall linearly to 0."""

        crop_scale: float = 286 / 256
        """See `translator.Config`: the authors' random jitter, 286 to 256 pixels."""

    config: Config
    needs_pairs: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        blocks = config.blocks or published_blocks(config.size)
        width = config.generator_width
        self.generator = initialize(ResidualTranslator(out_channels=1, width=width, blocks=blocks))
        self.rgb_generator = initialize(
            ResidualTranslator(out_channels=3, width=width, blocks=blocks)
        )
        self.thermal_discriminator = self._discriminator(channels=1)
        self.rgb_discriminator = self._discriminator(channels=3)
        self.thermal_pool = ImagePool(config.pool_size)
        self.rgb_pool = ImagePool(config.pool_size)

    def _discriminator(self, channels: int) -> PatchDiscriminator:
        config = self.config
        discriminator = initialize(
            PatchDiscriminator(
                in_channels=channels,
                width=config.discriminator_width,
                layers=fitting_layers(config.patch_layers, config.size),
                norm="instance",
            )
        )
        if config.spectral_norm:
            discriminator.apply_spectral_norm()
        return discriminator

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb)

    @property
    def size_multiple(self) -> int:
        return ResidualTranslator.DOWNSAMPLING

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (self.config.beta1, 0.999)
        return {
            "generators": adam_player(
                self.generator, self.rgb_generator, lr=config.generator_lr, betas=betas
            ),
            "discriminators": adam_player(
                self.thermal_discriminator,
                self.rgb_discriminator,
                lr=config.discriminator_lr,
                betas=betas,
            ),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config, loss = self.config, ADVERSARIAL_LOSSES[self.config.gan_mode]
        batch = next(batches)
        rgb, thermal = batch.rgb, batch.thermal
        # Both generators take three channels; thermal is repeated.
        thermal_input = thermal.expand(-1, 3, -1, -1)

        # Inputs of one network are batched where they are available at the same time. Instance
        # normalization treats each image by itself, so this changes the speed and nothing else.
        identity_weight = config.cycle_weight * config.identity_ratio
        identity: dict[str, Tensor] = {}
        if identity_weight:
            fake_thermal, same_thermal = forward_batched(self.generator, rgb, thermal_input)
            fake_rgb, same_rgb, cycled_rgb = forward_batched(
                self.rgb_generator, thermal_input, rgb, fake_thermal.expand(-1, 3, -1, -1)
            )
            identity["identity_thermal"] = identity_weight * F.l1_loss(same_thermal, thermal)
            identity["identity_rgb"] = identity_weight * F.l1_loss(same_rgb, rgb)
        else:
            fake_thermal = self.generator(rgb)
            fake_rgb, cycled_rgb = forward_batched(
                self.rgb_generator, thermal_input, fake_thermal.expand(-1, 3, -1, -1)
            )
        cycled_thermal = self.generator(fake_rgb)
        terms = {
            "adversarial_thermal": loss.generator(
                self.thermal_discriminator(self._augmented(fake_thermal))
            ),
            "adversarial_rgb": loss.generator(self.rgb_discriminator(self._augmented(fake_rgb))),
            "cycle_rgb": config.cycle_weight * F.l1_loss(cycled_rgb, rgb),
            "cycle_thermal": config.cycle_weight * F.l1_loss(cycled_thermal, thermal),
        }
        yield Turn("generators", terms | identity)

        thermals = thermal, self.thermal_pool.swap(fake_thermal)
        rgbs = rgb, self.rgb_pool.swap(fake_rgb)
        thermal_loss = loss.discriminator(
            *forward_batched(self.thermal_discriminator, *map(self._augmented, thermals))
        )
        rgb_loss = loss.discriminator(
            *forward_batched(self.rgb_discriminator, *map(self._augmented, rgbs))
        )
        # Halved, as in the paper, to slow the discriminators down relative to the generators.
        terms = {"thermal": 0.5 * thermal_loss, "rgb": 0.5 * rgb_loss}
        if config.r1:
            weight = 0.5 * config.r1_gamma
            terms["r1_thermal"] = weight * _r1_penalty(self.thermal_discriminator, thermal)
            terms["r1_rgb"] = weight * _r1_penalty(self.rgb_discriminator, rgb)
        yield Turn("discriminators", terms)

    def _augmented(self, images: Tensor) -> Tensor:
        """What a discriminator scores in place of `images`."""
        return augmented(self.config, images, images.shape[1])

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)


def _r1_penalty(discriminator: nn.Module, real: Tensor) -> Tensor:
    return patch_r1_penalty(lambda images: [discriminator(images)], real)


def forward_batched(network: nn.Module, *batches: Tensor) -> tuple[Tensor, ...]:
    """The output of `network` for each of `batches`, from one forward pass over all of them."""
    return network(torch.cat(batches)).split([len(batch) for batch in batches])
