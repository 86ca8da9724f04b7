"""UNIT: Unsupervised Image-to-Image Translation Networks.

Liu et al., NeurIPS 2017. https://arxiv.org/abs/1703.00848

RGB and thermal images of one scene are assumed to share a latent code. Each domain has a
variational autoencoder, and the layers next to the code are shared. An image is translated by
encoding it in its domain and decoding it in the other; translating it back must restore it.
Multi-scale discriminators score the translations. Needs no pairs.

Left out: the authors' later code can also compare VGG features of an image and of its translation
(weight 1 for game to city streets, 0 for summer to winter). The paper does not, and a search would
need a file of ImageNet weights on every machine, for features that never saw a thermal image.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.architectures import translator
from thermal_search.architectures.additions import DiscriminatorConfig, augmented
from thermal_search.architectures.translator import Player, Translator, Turn, adam_player
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import (
    ADVERSARIAL_LOSSES,
    discriminator_loss,
    generator_loss,
    patch_r1_penalty,
    pixel_loss,
)
from thermal_search.networks import MultiScale, ResidualBlock, initialize
from thermal_search.networks.padding import ReflectionPad
from thermal_search.networks.spectral_norm import SpectralNetwork, apply_spectral_norm

Code = Float[Tensor, "batch channels rows columns"]


@final
class UNIT(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DiscriminatorConfig):
        generator_lr: float = 1e-4
        discriminator_lr: float = 1e-4
        weight_decay: float = 1e-4
        """Adam's L2 penalty, for all networks."""

        gan_weight: float = 1.0
        """Weight of the adversarial terms. The five weights are the values of the authors' later
        code: the paper's divided by ten."""

        recon_weight: float = 10.0
        """Weight of the mean absolute error of an image decoded from its own code."""

        kl_weight: float = 0.01
        cycle_weight: float = 10.0
        """Weight of the mean absolute error of an image translated there and back."""

        cycle_kl_weight: float = 0.01
        """Weight of the divergence of the translated images' codes."""

        gan_mode: Literal["lsgan", "vanilla", "hinge"] = "lsgan"
        """The paper uses vanilla, the authors' later code lsgan."""

        blocks: int = 3
        """Residual blocks of each encoder and decoder that are not shared."""

        shared_blocks: int = 1
        """Residual blocks that both encoders share; as many that both decoders share."""

        generator_width: int = 64
        discriminator_width: int = 64
        scales: int = 3
        """Scales of each discriminator; fewer if the image is too small."""

        patch_layers: int = 4
        """Strided layers of each discriminator at each scale."""

        lr_halving: float = 0.1
        """Fraction of the budget after which the learning rates halve, again and again. Published:
        100,000 of a million images."""

    config: Config
    needs_pairs: ClassVar[bool] = False

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width, blocks, shared = config.generator_width, config.blocks, config.shared_blocks
        self.generator = _initialize(
            CrossDomainGenerator(width, blocks=blocks, shared_blocks=shared)
        )
        self.thermal_encoder = _initialize(encoder(1, width, blocks))
        self.rgb_decoder = _initialize(decoder(3, width, blocks))
        self.thermal_discriminator = self._discriminator(channels=1)
        self.rgb_discriminator = self._discriminator(channels=3)

    def _discriminator(self, channels: int) -> MultiScale:
        config = self.config
        max_scales = int(math.log2(config.size)) - config.patch_layers + 1
        discriminator = initialize(
            MultiScale(
                [
                    StridedDiscriminator(channels, config.discriminator_width, config.patch_layers)
                    for _ in range(min(config.scales, max_scales))
                ]
            )
        )
        if config.spectral_norm:
            apply_spectral_norm(discriminator)
        return discriminator

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb)

    @property
    def size_multiple(self) -> int:
        return 4  # the encoder halves the size twice

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (0.5, 0.999)
        return {
            "discriminators": adam_player(
                self.thermal_discriminator,
                self.rgb_discriminator,
                lr=config.discriminator_lr,
                betas=betas,
                weight_decay=config.weight_decay,
            ),
            # The shared layers are part of `generator`: each parameter is listed once.
            "generators": adam_player(
                self.generator,
                self.thermal_encoder,
                self.rgb_decoder,
                lr=config.generator_lr,
                betas=betas,
                weight_decay=config.weight_decay,
            ),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        loss, gan_weight = ADVERSARIAL_LOSSES[self.config.gan_mode], self.config.gan_weight
        batch = next(batches)
        rgb, thermal = batch.rgb, batch.thermal
        rgb_code, thermal_code = self.encode_rgb(rgb), self.encode_thermal(thermal)
        fake_thermal = self.decode_thermal(_sample(rgb_code))
        fake_rgb = self.decode_rgb(_sample(thermal_code))

        thermal_loss = discriminator_loss(
            loss,
            self._thermal_scores(thermal),
            self._thermal_scores(fake_thermal.detach()),
        )
        rgb_loss = discriminator_loss(
            loss, self._rgb_scores(rgb), self._rgb_scores(fake_rgb.detach())
        )
        terms = {"thermal": gan_weight * thermal_loss, "rgb": gan_weight * rgb_loss}
        if self.config.r1:
            weight = 0.5 * self.config.r1_gamma
            terms["r1_thermal"] = weight * patch_r1_penalty(self.thermal_discriminator, thermal)
            terms["r1_rgb"] = weight * patch_r1_penalty(self.rgb_discriminator, rgb)
        yield Turn("discriminators", terms)

        # The generators have not been updated since: the same fakes serve for their own turn.
        thermal_loss = generator_loss(loss, self._thermal_scores(fake_thermal))
        rgb_loss = generator_loss(loss, self._rgb_scores(fake_rgb))
        yield Turn(
            "generators",
            {
                "adversarial_thermal": gan_weight * thermal_loss,
                "adversarial_rgb": gan_weight * rgb_loss,
                **self._reconstruction_losses(rgb, thermal, rgb_code, thermal_code),
                **self._cycle_losses(rgb, thermal, fake_rgb, fake_thermal),
            },
        )

    def _thermal_scores(self, thermal: Thermal) -> list[Tensor]:
        """The patches' scores at each scale."""
        return self.thermal_discriminator(augmented(self.config, thermal))

    def _rgb_scores(self, rgb: Rgb) -> list[Tensor]:
        return self.rgb_discriminator(augmented(self.config, rgb, 3))

    def _reconstruction_losses(
        self, rgb: Rgb, thermal: Thermal, rgb_code: Code, thermal_code: Code
    ) -> dict[str, Tensor]:
        """The losses of the two variational autoencoders."""
        config = self.config
        decoded_rgb = self.decode_rgb(_sample(rgb_code))
        decoded_thermal = self.decode_thermal(_sample(thermal_code))
        return {
            "recon_rgb": pixel_loss(decoded_rgb, rgb, config.recon_weight),
            "recon_thermal": pixel_loss(decoded_thermal, thermal, config.recon_weight),
            "kl": config.kl_weight * (_divergence(rgb_code) + _divergence(thermal_code)),
        }

    def _cycle_losses(
        self, rgb: Rgb, thermal: Thermal, fake_rgb: Rgb, fake_thermal: Thermal
    ) -> dict[str, Tensor]:
        """The losses of translating both images back to their own domain."""
        config = self.config
        rgb_code, thermal_code = self.encode_thermal(fake_thermal), self.encode_rgb(fake_rgb)
        cycled_rgb = self.decode_rgb(_sample(rgb_code))
        cycled_thermal = self.decode_thermal(_sample(thermal_code))
        return {
            "cycle_rgb": pixel_loss(cycled_rgb, rgb, config.cycle_weight),
            "cycle_thermal": pixel_loss(cycled_thermal, thermal, config.cycle_weight),
            "cycle_kl": config.cycle_kl_weight
            * (_divergence(rgb_code) + _divergence(thermal_code)),
        }

    def encode_rgb(self, rgb: Rgb) -> Code:
        generator = self._cross_domain_generator
        return generator.shared_encoder(generator.rgb_encoder(rgb))

    def encode_thermal(self, thermal: Thermal) -> Code:
        return self._cross_domain_generator.shared_encoder(self.thermal_encoder(thermal))

    def decode_rgb(self, code: Code) -> Rgb:
        return self.rgb_decoder(self._cross_domain_generator.shared_decoder(code)).float()

    def decode_thermal(self, code: Code) -> Thermal:
        generator = self._cross_domain_generator
        return generator.thermal_decoder(generator.shared_decoder(code)).float()

    @property
    def _cross_domain_generator(self) -> "CrossDomainGenerator":
        assert isinstance(self.generator, CrossDomainGenerator)
        return self.generator

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.halved(images, budget_images, self.config.lr_halving)


def _sample(code: Code) -> Code:
    """A sample of the posterior N(code, 1)."""
    return code + torch.randn_like(code)


def _divergence(code: Code) -> Tensor:
    """The KL divergence of N(code, 1) from N(0, 1) as the authors compute it: a mean of squares,
    without the factor 1/2."""
    return code.float().square().mean()


class CrossDomainGenerator(nn.Module):
    """RGB -> code -> thermal; the layers next to the code also serve the opposite direction."""

    def __init__(self, width: int = 64, *, blocks: int = 3, shared_blocks: int = 1) -> None:
        super().__init__()
        self.rgb_encoder = encoder(3, width, blocks)
        self.shared_encoder = _residual(4 * width, shared_blocks)
        self.shared_decoder = _residual(4 * width, shared_blocks)
        self.thermal_decoder = decoder(1, width, blocks)

    def forward(self, rgb: Rgb) -> Thermal:
        code = self.shared_encoder(self.rgb_encoder(rgb))
        return self.thermal_decoder(self.shared_decoder(code)).float()


def encoder(channels: int, width: int, blocks: int) -> nn.Sequential:
    """Maps an image to 4 * `width` features at a quarter of its size."""
    return nn.Sequential(
        ReflectionPad(3),
        nn.Conv2d(channels, width, 7),
        nn.InstanceNorm2d(width),
        nn.ReLU(),
        *_downsample(width, 2 * width),
        *_downsample(2 * width, 4 * width),
        *_residual(4 * width, blocks),
    )


def decoder(channels: int, width: int, blocks: int) -> nn.Sequential:
    """Maps 4 * `width` features to an image of `channels` at four times their size."""
    return nn.Sequential(
        *_residual(4 * width, blocks),
        *_upsample(4 * width, 2 * width),
        *_upsample(2 * width, width),
        ReflectionPad(3),
        nn.Conv2d(width, channels, 7),
        nn.Tanh(),
    )


def _residual(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


def _downsample(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        ReflectionPad(1),
        nn.Conv2d(in_channels, out_channels, 4, 2),
        nn.InstanceNorm2d(out_channels),
        nn.ReLU(),
    )


def _upsample(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return (
        nn.Upsample(scale_factor=2),
        ReflectionPad(2),
        nn.Conv2d(in_channels, out_channels, 5),
        nn.GroupNorm(1, out_channels),  # layer normalization: over an image's channels and pixels
        nn.ReLU(),
    )


class StridedDiscriminator(SpectralNetwork):
    """Strided convolutions with reflection padding and without normalization, then one of 1 x 1.

    Has spectral normalization after a call of `apply_spectral_norm`.
    """

    def __init__(self, in_channels: int, width: int = 64, layers: int = 4) -> None:
        super().__init__()
        channels = [in_channels, *(width * 2**layer for layer in range(layers))]
        modules: list[nn.Module] = []
        for layer_in, layer_out in itertools.pairwise(channels):
            modules += [
                ReflectionPad(1),
                nn.Conv2d(layer_in, layer_out, 4, 2),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*modules, nn.Conv2d(channels[-1], 1, 1))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 1 rows columns"]:
        with parametrize.cached():
            self.cache_weights()
            return self.layers(images)


def _initialize(network: nn.Sequential | CrossDomainGenerator) -> nn.Module:
    """He's initialization (arXiv 1502.01852), as in the authors' code; biases start at 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network
