"""Improved GAN: Improved Techniques for Training GANs.

Salimans et al., NeurIPS 2016. https://arxiv.org/abs/1606.03498

DCGAN's generator with five techniques: feature matching, minibatch discrimination, historical
averaging, one-sided label smoothing, and virtual batch normalization. Historical averaging is off
by default: the authors' code has none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.architectures import translator
from thermal_search.architectures.additions import (
    DecoderConfig,
    DiscriminatorConfig,
    r1_terms,
    scored_images,
    similarity_terms,
)
from thermal_search.architectures.translator import Translator, Turn, adam_players
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import smoothed_cross_entropy
from thermal_search.networks import DcganGenerator, initialize
from thermal_search.networks.fusion import LateFusion
from thermal_search.networks.historical_average import HistoricalAverage
from thermal_search.networks.minibatch_discrimination import MinibatchDiscrimination
from thermal_search.networks.reference_batch import ReferenceBatchGenerator
from thermal_search.networks.spectral_norm import SpectralNetwork
from thermal_search.networks.weight_norm import init_weight_norm, weight_norm

BASE_RESOLUTION = 8
"""Height and width of the discriminator's smallest features."""


@final
class ImprovedGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig, DiscriminatorConfig):
        generator_lr: float = 3e-4
        discriminator_lr: float = 3e-4
        beta1: float = 0.5
        """Adam's beta1, of both players; beta2 is 0.999."""

        n_generator: int = 3
        """Generator turns per discriminator turn, each on a new batch."""

        real_label: float = 0.9
        """The discriminator's target for real pairs; the one for generated pairs is 0."""

        generator_loss: Literal["both", "feature_matching", "adversarial"] = "both"

        feature_matching_weight: float = 1.0
        """Weight of feature matching if the adversarial term, which has weight 1, applies too."""

        feature_matching_norm: Literal["l1", "l2"] = "l1"
        """L1 between mean features, as in the authors' code, or squared L2, as in the text."""

        minibatch_discrimination: bool = True
        """Whether the discriminator compares the images of its batch, which is one worker's."""

        num_kernels: int = 100
        dim_per_kernel: int = 5
        reference_batch_size: int = 32
        """Images of the reference batch of virtual batch normalization."""

        historical_averaging: bool = False
        """Whether both players are penalized for their distance from the mean of past weights. Not
        in the authors' code."""

        historical_averaging_weight: float = 1e-2
        """Weight of the squared distance of all weights. The paper gives none."""

        spectral_norm: bool = False
        """Whether the discriminator has spectral normalization, in place of weight normalization.
        Not part of the paper."""

        input_noise: float = 0.2
        """Standard deviation of Gaussian noise on the discriminator's input."""

        dropout: float = 0.5
        latent_size: int = 100
        width: int = 64
        condition_channels: int = 32
        """Channels of the RGB condition at each resolution of the generator; 0: the 3 of RGB."""

        rgb_fusion: Literal["early", "late"] = "early"
        """Where the discriminator fuses the RGB and the thermal image: at its input, or at its
        smallest features, after separate branches."""

        decay_start: float = 2 / 3
        """Fraction of the budget after which the learning rates fall linearly to 0."""

        batch_size: int = 100

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 1 <= self.reference_batch_size <= MAX_REFERENCE_BATCH:
                raise ValueError(
                    f"reference_batch_size must be from 1 to {MAX_REFERENCE_BATCH}, but got "
                    f"{self.reference_batch_size}."
                )

        @property
        def coupling(self) -> str | None:
            return "minibatch_discrimination=True" if self.minibatch_discrimination else None

        @property
        def generator_turns(self) -> int:
            return self.n_generator

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = ReferenceBatchGenerator(
            initialize(
                DcganGenerator(
                    size=config.size,
                    latent_size=config.latent_size,
                    width=config.width,
                    condition_channels=config.condition_channels,
                    rgb_encoder=config.rgb_encoder,
                    norm="virtual",
                ),
                std=0.05,
            ),
            reference_batch_size=config.reference_batch_size,
            size=config.size,
            latent_size=config.latent_size,
        )
        self.discriminator = MinibatchDiscriminator(
            size=config.size,
            width=config.width,
            num_kernels=config.num_kernels if config.minibatch_discrimination else 0,
            dim_per_kernel=config.dim_per_kernel,
            input_noise=config.input_noise,
            dropout=config.dropout,
            late_fusion=config.rgb_fusion == "late",
            spectral_norm=config.spectral_norm,
        )
        self.discriminator_average = self.generator_average = None
        if config.historical_averaging:
            self.discriminator_average = HistoricalAverage(self.discriminator)
            self.generator_average = HistoricalAverage(self.generator)

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        return torch.rand(count, self.config.latent_size, generator=random, device=device)

    def init_from_data(self, batch: Batch) -> None:
        generator, rgb = self.generator, batch.rgb
        assert isinstance(generator, ReferenceBatchGenerator)
        generator.set_reference_batch(rgb)
        generator.init_from_data(rgb, self.latent_for(rgb, None))
        self.discriminator.init_from_data(torch.cat([rgb, batch.thermal], dim=1))
        if self.discriminator_average and self.generator_average:
            self.discriminator_average.restart(self.discriminator)
            self.generator_average.restart(generator)

    players = adam_players

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        batch = next(batches)
        with torch.no_grad():
            fake = self.translate(batch.rgb)
        real_score, _ = self._score(batch.rgb, batch.thermal)
        fake_score, _ = self._score(batch.rgb, fake)
        loss = smoothed_cross_entropy(real_score, fake_score, config.real_label)
        terms = {"adversarial": loss}
        if self.discriminator_average:
            distance = self.discriminator_average.distance(self.discriminator)
            terms["historical_averaging"] = config.historical_averaging_weight * distance
        terms |= r1_terms(config, batch.thermal, partial(self._score_pair, batch.rgb))
        yield Turn("discriminator", terms)
        if self.discriminator_average:
            self.discriminator_average.append(self.discriminator)

        for _ in range(config.n_generator):
            yield Turn("generator", self._generator_terms(next(batches)))
            if self.generator_average:
                self.generator_average.append(self.generator)

    def _generator_terms(self, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        fake = self.translate(batch.rgb)
        score, features = self._score(batch.rgb, fake)
        terms: dict[str, Tensor] = {}
        if config.generator_loss != "feature_matching":
            terms["adversarial"] = F.softplus(-score).mean()
        if config.generator_loss != "adversarial":
            with torch.no_grad():
                _, real_features = self._score(batch.rgb, batch.thermal)
            weight = config.feature_matching_weight if config.generator_loss == "both" else 1.0
            loss = feature_matching(features, real_features, config.feature_matching_norm)
            terms["feature_matching"] = weight * loss
        if self.generator_average:
            distance = self.generator_average.distance(self.generator)
            terms["historical_averaging"] = config.historical_averaging_weight * distance
        return terms | similarity_terms(config, fake, batch.thermal)

    def _score(
        self, rgb: Rgb, thermal: Thermal
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch features"]]:
        """As the discriminator: logits and features."""
        return self.discriminator(torch.cat(scored_images(self.config, rgb, thermal), dim=1))

    def _score_pair(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        score, _ = self.discriminator(torch.cat([rgb, thermal], dim=1))
        return score

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)


def feature_matching(fake: Tensor, real: Tensor, norm: str) -> Tensor:
    """The distance between the mean features of two batches [batch, features] (section 3.1).

    `l1`: the mean absolute difference. `l2`: the sum of squared differences.
    """
    difference = real.float().mean(0) - fake.float().mean(0)
    return difference.abs().mean() if norm == "l1" else difference.square().sum()


MAX_REFERENCE_BATCH = 1_000
"""Images: the generator takes all of them at a time, and every export holds them."""


class MinibatchDiscriminator(SpectralNetwork):
    """Weight-normalized convolutions to one vector per image, then minibatch discrimination.

    `spectral_norm`: spectral in place of weight normalization, of the same layers.
    `late_fusion`: each image has its own convolutions, the RGB image half as wide ones, and their
    features are concatenated at 8 x 8.
    """

    def __init__(
        self,
        *,
        size: int,
        width: int = 64,
        num_kernels: int = 100,
        dim_per_kernel: int = 5,
        input_noise: float = 0.2,
        dropout: float = 0.5,
        late_fusion: bool = False,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.input_noise = input_noise
        if late_fusion:
            thermal_branch, channels = _downsampling(1, size, width, dropout)
            rgb_branch, rgb_channels = _downsampling(3, size, width // 2, dropout)
            # The next layer and the paper's own 1 x 1 convolutions mix the two branches.
            downsampled = nn.Sequential(LateFusion(thermal_branch, rgb_branch))
            in_channels = channels + rgb_channels
        else:
            downsampled, channels = _downsampling(4, size, width, dropout)
            in_channels = channels
        self.layers = nn.Sequential(
            *downsampled,
            *_activated(nn.Conv2d(in_channels, channels, 3)),
            *_activated(nn.Conv2d(channels, channels, 1)),
            *_activated(nn.Conv2d(channels, channels, 1)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.minibatch_discrimination = None
        if num_kernels:
            self.minibatch_discrimination = MinibatchDiscrimination(
                channels, num_kernels, dim_per_kernel
            )
        self.head = initialize(nn.Linear(channels + num_kernels, 1), std=0.05)
        if spectral_norm:
            self.apply_spectral_norm()
            return
        for layer in self.layers.modules():
            if isinstance(layer, nn.Conv2d):
                weight_norm(layer)
        weight_norm(self.head, init_std=0.1, learns_gain=True)

    @torch.no_grad()
    def init_from_data(self, pair: Float[Tensor, "batch 4 height width"]) -> None:
        """Sets all scales and biases so that no layer is saturated on these real pairs.

        Without it, the scale of the features and of the logits would grow with the image size.
        """
        with init_weight_norm(self.layers):
            features = self.layers(self._add_noise(pair))
        if self.minibatch_discrimination:
            self.minibatch_discrimination.init_from_data(features)
        with init_weight_norm(self.head):
            self.head(self._head_input(features))

    def forward(
        self, pair: Float[Tensor, "batch 4 height width"]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch features"]]:
        """Logits, and the features before minibatch discrimination."""
        with parametrize.cached():
            self.cache_weights()
            features = self.layers(self._add_noise(pair))
            return self.head(self._head_input(features)).flatten().float(), features

    def _add_noise(self, pair: Tensor) -> Tensor:
        # The RGB image needs noise too: the discriminator could memorize clean training images.
        if self.training and self.input_noise:
            pair = pair + self.input_noise * torch.randn_like(pair)
        return pair

    def _head_input(self, features: Tensor) -> Tensor:
        if self.minibatch_discrimination is None:
            return features
        return torch.cat([features, self.minibatch_discrimination(features)], dim=1)


def _downsampling(
    in_channels: int, size: int, width: int, dropout: float
) -> tuple[nn.Sequential, int]:
    """Convolutions from `size` to 8 x 8 and their output channels: `width` doubled up to 8x."""
    layers = nn.Sequential()
    out_channels = width
    for level in range((size // BASE_RESOLUTION).bit_length() - 1):
        out_channels = min(width * 2**level, 8 * width)
        layers.extend(
            [
                *_activated(nn.Conv2d(in_channels, out_channels, 3, 1, 1)),
                *_activated(nn.Conv2d(out_channels, out_channels, 3, 2, 1)),
                nn.Dropout(dropout),
            ]
        )
        in_channels = out_channels
    return layers, out_channels


def _activated(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return initialize(convolution, std=0.05), nn.LeakyReLU(0.2)
