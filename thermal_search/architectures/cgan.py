"""cGAN: Conditional Generative Adversarial Nets, with a matching-aware discriminator.

Mirza & Osindero 2014. https://arxiv.org/abs/1411.1784
Reed et al., Generative Adversarial Text to Image Synthesis, ICML 2016 (GAN-CLS).
https://arxiv.org/abs/1605.05396

Each network encodes the RGB image by itself and fuses its embedding at 4 x 4. The discriminator
scores three kinds of pairs: real, generated, and mismatched real images, so that a realistic
thermal image is not enough.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.architectures import translator
from thermal_search.architectures.additions import (
    DiscriminatorConfig,
    PairedConfig,
    r1_terms,
    scored_images,
    similarity_terms,
)
from thermal_search.architectures.translator import (
    Translator,
    Turn,
    adam_players,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.networks import ConditionPyramid, initialize
from thermal_search.networks.deep_convolutional import dcgan_channels, downsampling
from thermal_search.networks.initialization import normalization
from thermal_search.networks.spectral_norm import SpectralNetwork

BASE_RESOLUTION = 4
"""Height and width of the RGB embedding."""

MIN_DIFFERENCE = 0.05
"""Mean absolute difference, in network range, above which two thermal images are a mismatch. Frames
next to each other in a recording differ less: they would teach that true pairs are false."""


@final
class CGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(PairedConfig, DiscriminatorConfig):
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        """Adam's beta1, of both players; beta2 is 0.999."""

        mismatch_weight: float = 0.5
        """Weight of the mismatched pairs' loss; the generated pairs' loss has 1 minus that."""

        embedding_size: int = 128
        """Channels of the RGB embedding."""

        manifold_interpolation: bool = False
        """Whether the generator also learns from interpolated embeddings (GAN-INT)."""

        manifold_interpolation_weight: float = 1.0
        latent_size: int = 100
        width: int = 64
        condition_channels: int = 32
        """Channels of the RGB condition at each resolution of the generator; 0: the 3 of RGB."""

        discriminator_norm: Literal["batch", "layer"] = "batch"
        """Normalization of the discriminator: the paper's, or layer normalization, which keeps the
        images of a batch apart, so that R1 is one image's own (Gulrajani et al. 2017)."""

        lr_halving: float = 0.2
        """Fraction of the budget after which the learning rates halve, again and again. Published:
        40 of 200 epochs."""

        diff_augment: bool = False
        """Whether the discriminator scores augmented pairs (see `diff_augment`), but for those of
        interpolated embeddings. Not part of the paper."""

        crop_scale: float = 76 / 64
        """See `translator.Config`: Reed et al. crop 76 to 64 pixels."""

        batch_size: int = 64

        @property
        def coupling(self) -> str | None:
            return "discriminator_norm=batch" if self.discriminator_norm == "batch" else None

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.batch_size < 2:
            raise ValueError("cgan needs a batch_size of at least 2 to mismatch pairs, but got 1.")
        self.config = config
        self.generator = initialize(
            ConditionalGenerator(
                size=config.size,
                latent_size=config.latent_size,
                embedding_size=config.embedding_size,
                width=config.width,
                condition_channels=config.condition_channels,
            )
        )
        self.discriminator = initialize(
            MatchingAwareDiscriminator(
                size=config.size,
                embedding_size=config.embedding_size,
                width=config.width,
                norm=config.discriminator_norm,
            )
        )
        if config.spectral_norm:
            self.discriminator.apply_spectral_norm()

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    draw_latent = normal_latent

    players = adam_players

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config, score = self.config, self._score
        batch = next(batches)
        rgb, thermal = batch.rgb, batch.thermal
        fake = self.translate(rgb)

        other, is_mismatch = mismatched(thermal)
        # Three passes, because batch normalization would mix the three kinds.
        real_loss = F.softplus(-score(rgb, thermal)).mean()
        mismatch_losses = F.softplus(score(rgb, other))
        fake_loss = F.softplus(score(rgb, fake.detach())).mean()
        mismatch_loss = (mismatch_losses * is_mismatch).sum() / is_mismatch.sum().clamp(min=1)
        weight = config.mismatch_weight
        terms = {
            "real": real_loss,
            "mismatched": weight * mismatch_loss,
            "fake": (1 - weight) * fake_loss,
            **r1_terms(config, thermal, partial(self.discriminator, rgb)),
        }
        yield Turn("discriminator", terms)

        terms = {"adversarial": F.softplus(-score(rgb, fake)).mean()}
        if config.manifold_interpolation:
            loss = self._interpolated_loss(rgb)
            terms["interpolated"] = config.manifold_interpolation_weight * loss
        terms |= similarity_terms(config, fake, thermal)
        yield Turn("generator", terms)

    def _score(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.discriminator(*scored_images(self.config, rgb, thermal))

    def _interpolated_loss(self, rgb: Rgb) -> Tensor:
        """The generator's loss from embeddings half-way between two images, which have no real
        thermal image."""
        fake = self.generator(rgb, self.latent_for(rgb, None), interpolate=True)
        return F.softplus(-self.discriminator(rgb, fake, interpolate=True)).mean()

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.halved(images, budget_images, self.config.lr_halving)


def mismatched(thermal: Thermal) -> tuple[Thermal, Float[Tensor, "batch"]]:
    """The batch rolled by a random offset, and 1 for each image that differs from the original.

    0 marks images that are nearly the same (see MIN_DIFFERENCE).
    """
    # Drawn on the device, which avoids a synchronization.
    offset = torch.randint(1, len(thermal), (), device=thermal.device)
    index = torch.arange(len(thermal), device=thermal.device)
    other = thermal[(index - offset) % len(thermal)]
    difference = (other - thermal).abs().mean((1, 2, 3))
    return other, (difference > MIN_DIFFERENCE).float()


def _interpolated(images: Tensor) -> Tensor:
    """Half-way between each image, or embedding, and the one before it in the batch."""
    return (images + images.roll(1, 0)) / 2


def _normalized(
    convolution: nn.Module, channels: int, after: nn.Module, norm: str = "batch"
) -> nn.Sequential:
    return nn.Sequential(convolution, normalization(norm, channels), after)


class RgbEncoder(nn.Module):
    """Encodes the RGB image into a 4 x 4 embedding."""

    def __init__(self, *, size: int, embedding_size: int, width: int, norm: str = "batch") -> None:
        super().__init__()
        channels = dcgan_channels(size, width // 2, max_multiplier=16)
        self.layers = downsampling(3, channels, norm)
        self.head = nn.Sequential(
            nn.Conv2d(channels[BASE_RESOLUTION], embedding_size, 1), nn.LeakyReLU(0.2)
        )

    def forward(
        self, rgb: Rgb, *, interpolate: bool = False
    ) -> Float[Tensor, "batch channels 4 4"]:
        """`interpolate`: half-way to the embedding of the image before it in the batch."""
        embedding = self.head(self.layers(rgb))
        return _interpolated(embedding) if interpolate else embedding


class ResidualBottleneck(nn.Module):
    """A residual block of three convolutions with a quarter of the channels inside.

    Its input is normalized and not activated, so that the skip connection carries both signs.
    """

    def __init__(self, channels: int, activation: nn.Module, norm: str = "batch") -> None:
        super().__init__()
        inner = channels // 4
        self.layers = nn.Sequential(
            _normalized(nn.Conv2d(channels, inner, 1, bias=False), inner, activation, norm),
            _normalized(nn.Conv2d(inner, inner, 3, 1, 1, bias=False), inner, activation, norm),
            nn.Conv2d(inner, channels, 3, 1, 1, bias=False),
            normalization(norm, channels),
        )
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(features + self.layers(features))


class ConditionalGenerator(nn.Module):
    """Fuses the latent's features and the RGB embedding at 4 x 4, then upsamples to the image."""

    def __init__(
        self,
        *,
        size: int,
        latent_size: int = 100,
        embedding_size: int = 128,
        width: int = 64,
        condition_channels: int = 32,
    ) -> None:
        super().__init__()
        channels = dcgan_channels(size, width, max_multiplier=8)
        root = channels[BASE_RESOLUTION]
        self.rgb_encoder = RgbEncoder(size=size, embedding_size=embedding_size, width=width)
        self.condition = ConditionPyramid(
            [r for r in channels if r > BASE_RESOLUTION], condition_channels
        )
        self.root = _normalized(
            nn.ConvTranspose2d(latent_size, root, 4, 1, 0, bias=False), root, nn.ReLU()
        )
        self.fusion = _normalized(
            nn.Conv2d(root + embedding_size, root, 1, bias=False),
            root,
            ResidualBottleneck(root, nn.ReLU()),
        )
        self.levels = nn.ModuleList()
        for resolution, in_channels in channels.items():
            if resolution > BASE_RESOLUTION:
                in_channels += self.condition.channels
            if 2 * resolution == size:
                self.levels.append(
                    nn.Sequential(nn.ConvTranspose2d(in_channels, 1, 4, 2, 1), nn.Tanh())
                )
                continue
            out_channels = channels[2 * resolution]
            convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False)
            is_root = resolution == BASE_RESOLUTION
            after = ResidualBottleneck(out_channels, nn.ReLU()) if is_root else nn.ReLU()
            self.levels.append(_normalized(convolution, out_channels, after))

    def forward(self, rgb: Rgb, z: Latent, *, interpolate: bool = False) -> Thermal:
        embedding = self.rgb_encoder(rgb, interpolate=interpolate)
        features = self.fusion(torch.cat([self.root(z[:, :, None, None]), embedding], dim=1))
        if interpolate:
            # The pyramid has a single convolution, so interpolating its input is close enough.
            rgb = _interpolated(rgb)
        condition = self.condition.encode(rgb)
        for level in self.levels:
            is_root = features.shape[-1] == BASE_RESOLUTION
            features = level(
                features if is_root else self.condition.concatenate(features, condition)
            )
        return features.float()


class MatchingAwareDiscriminator(SpectralNetwork):
    """Downsamples the thermal image alone and fuses the RGB embedding at 4 x 4.

    Has spectral normalization after a call of `apply_spectral_norm`.
    """

    def __init__(
        self, *, size: int, embedding_size: int = 128, width: int = 64, norm: str = "batch"
    ) -> None:
        super().__init__()
        channels = dcgan_channels(size, width, max_multiplier=8)
        last = channels[BASE_RESOLUTION]
        *layers, _ = downsampling(1, channels, norm)  # without the last activation
        bottleneck = ResidualBottleneck(last, nn.LeakyReLU(0.2), norm)
        self.thermal_branch = nn.Sequential(*layers, bottleneck)
        self.rgb_encoder = RgbEncoder(
            size=size, embedding_size=embedding_size, width=width, norm=norm
        )
        fusion = nn.Conv2d(last + embedding_size, last, 1, bias=False)
        self.head = nn.Sequential(
            _normalized(fusion, last, nn.LeakyReLU(0.2), norm),
            nn.Conv2d(last, 1, BASE_RESOLUTION, 1, 0),
        )

    def forward(
        self, rgb: Rgb, thermal: Thermal, *, interpolate: bool = False
    ) -> Float[Tensor, "batch"]:
        with parametrize.cached():
            self.cache_weights()
            embedding = self.rgb_encoder(rgb, interpolate=interpolate)
            fused = torch.cat([self.thermal_branch(thermal), embedding], dim=1)
            return self.head(fused).flatten().float()
