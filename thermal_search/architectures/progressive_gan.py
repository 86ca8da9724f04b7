"""Progressive GAN: Progressive Growing of GANs for Improved Quality, Stability, and Variation.

Karras et al., ICLR 2018. https://arxiv.org/abs/1710.10196

Both networks start at a low resolution and double it during training; the layers of each new
resolution fade in. Training is stabilized by equalized learning rates, pixelwise feature
normalization and a minibatch standard deviation in the discriminator. The loss is WGAN-GP's.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.architectures.additions import scored_images, similarity_terms
from thermal_search.architectures.growth import GrowthConfig, growing_learning_rate_factor
from thermal_search.architectures.translator import (
    Player,
    Translator,
    Turn,
    adam_player,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import gradient_penalty, wasserstein
from thermal_search.networks import ConditionPyramid
from thermal_search.networks.condition import ConditionFeatures, RgbEncoder
from thermal_search.networks.progressive import (
    BASE_RESOLUTION,
    GAIN,
    EqualizedConv2d,
    EqualizedLinear,
    Growth,
    ProgressiveDiscriminator,
    ProgressiveNetwork,
    at_full_size,
    grow,
    pixel_norm,
    progressive_channels,
)

LEARNING_RATE_FACTORS = {1024: 1.5}
"""By resolution, as in the authors' code for one GPU."""


@final
class ProgressiveGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(GrowthConfig):
        generator_lr: float = 1e-3
        discriminator_lr: float = 1e-3
        """Both with Adam's decay rates 0 and 0.99; 1.5 times as much at 1024 pixels."""

        channel_base: int = 8192
        """Resolution r has min(2 * channel_base // r, channel_max) channels."""

        channel_max: int = 512
        latent_size: int = 512
        condition_channels: int = 32
        """Channels of the generator's RGB features at each resolution; 0: the RGB image itself."""

        penalty_weight: float = 10.0
        drift_weight: float = 1e-3
        """Weight of the squared score of real pairs, which keeps the scores near 0."""

        n_critic: int = 1
        mbstd_group_size: int = 4
        """Group size of the minibatch standard deviation; 1: none."""

        ema_half_life_images: int = 11_000
        """At 128 pixels, where it is the paper's decay of 0.999 per step. The decay per step stays,
        so that the half-life follows the batch size of each resolution."""

        def ema_half_life_at(self, progress: float) -> float:
            return self.ema_half_life_images * self.batch_size_at(progress) / self.batch_size

    config: Config
    needs_pairs: ClassVar[bool] = True
    grows: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.schedule = config.schedule
        start = self.schedule.at(0.0)
        self.generator = ProgressiveGenerator(
            size=config.size,
            start=start,
            latent_size=config.latent_size,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
            condition_channels=config.condition_channels,
            rgb_encoder=config.rgb_encoder,
        )
        self.discriminator = ProgressiveDiscriminator(
            size=config.size,
            start=start,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
            mbstd_group_size=config.mbstd_group_size,
        )

    def begin_step(self, images: int, budget_images: int) -> bool:
        assert isinstance(self.generator, ProgressiveGenerator)
        return grow(self.schedule.at(images / budget_images), self.generator, self.discriminator)

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return growing_learning_rate_factor(
            self.config, LEARNING_RATE_FACTORS, images, budget_images
        )

    def graph_key(self) -> Hashable:
        return self.discriminator.growth.resolution, self.discriminator.is_fading

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return at_full_size(self.generator(rgb, self.latent_for(rgb, z)), self.config.size)

    draw_latent = normal_latent

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (0.0, 0.99)
        return {
            "discriminator": adam_player(
                self.discriminator, lr=config.discriminator_lr, betas=betas
            ),
            "generator": adam_player(self.generator, lr=config.generator_lr, betas=betas),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        for _ in range(config.n_critic - 1):
            with torch.no_grad():
                rgb, real, fake = self._images(next(batches))
            yield Turn("discriminator", self._discriminator_loss(rgb, real, fake))

        # The generator is not updated in between: the same fakes serve for its own turn.
        rgb, real, fake = self._images(next(batches))
        yield Turn("discriminator", self._discriminator_loss(rgb, real, fake.detach()))
        terms = {"adversarial": wasserstein.generator(self._score(rgb, fake))}
        yield Turn("generator", terms | similarity_terms(config, fake, real))

    def _images(self, batch: Batch) -> tuple[Rgb, Thermal, Thermal]:
        """RGB, real and generated images at the resolution reached."""
        downsample = self.discriminator.downsample
        fake = self.generator(batch.rgb, self.latent_for(batch.rgb, None))
        return downsample(batch.rgb), downsample(batch.thermal), fake

    def _discriminator_loss(self, rgb: Rgb, real: Thermal, fake: Thermal) -> dict[str, Tensor]:
        # Two passes: the minibatch standard deviation must not mix real and fake images.
        real_score, fake_score = self._score(rgb, real), self._score(rgb, fake)
        penalty = gradient_penalty(lambda thermal: self._score(rgb, thermal), real, fake)
        return {
            "wasserstein": wasserstein.discriminator(real_score, fake_score),
            "penalty": self.config.penalty_weight * penalty,
            "drift": self.config.drift_weight * real_score.square().mean(),
        }

    def _score(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.discriminator(*scored_images(self.config, rgb, thermal))


class ProgressiveGenerator(ProgressiveNetwork):
    """Maps a normalized latent to 4 x 4 features and upsamples them to the resolution reached."""

    def __init__(
        self,
        *,
        size: int,
        start: Growth,
        latent_size: int = 512,
        channel_base: int = 8192,
        channel_max: int = 512,
        condition_channels: int | None = 32,
        rgb_encoder: RgbEncoder = "pooled",
    ) -> None:
        super().__init__(start)
        channels = progressive_channels(size, channel_base, channel_max)
        self.condition = ConditionPyramid(
            list(channels), condition_channels, encoder=rgb_encoder, size=size
        )
        rgb_channels = self.condition.channels
        self.dense = EqualizedLinear(
            latent_size, channels[BASE_RESOLUTION] * BASE_RESOLUTION**2, gain=GAIN / 4, bias=False
        )
        self.dense_bias = nn.Parameter(torch.zeros(channels[BASE_RESOLUTION], 1, 1))
        self.first_conv = nn.ModuleDict()
        self.second_conv = nn.ModuleDict()
        self.to_thermal = nn.ModuleDict()
        for resolution, width in channels.items():
            r = str(resolution)
            in_channels = channels[max(resolution // 2, BASE_RESOLUTION)] + rgb_channels
            self.first_conv[r] = EqualizedConv2d(in_channels, width, 3)
            if resolution > BASE_RESOLUTION:
                self.second_conv[r] = EqualizedConv2d(width, width, 3)
            self.to_thermal[r] = EqualizedConv2d(width, 1, 1, gain=1.0)

    def forward(self, rgb: Rgb, z: Latent) -> Float[Tensor, "batch 1 rows columns"]:
        """Images at the resolution of `growth`, not clipped to -1 .. 1."""
        resolution = self.growth.resolution
        condition = self.condition.encode(rgb)
        dense = self.dense(pixel_norm(z)).unflatten(1, (-1, BASE_RESOLUTION, BASE_RESOLUTION))
        features = pixel_norm(F.leaky_relu(dense + self.dense_bias, 0.2))
        coarse, reached = features, BASE_RESOLUTION
        while True:
            features = self._block(features, condition, reached)
            if reached == resolution:
                break
            coarse, reached = features, reached * 2
            features = F.interpolate(features, scale_factor=2)
        thermal = self.to_thermal[str(resolution)](features)
        if self.is_fading:
            previous = self.to_thermal[str(resolution // 2)](coarse)
            previous = F.interpolate(previous, scale_factor=2)
            thermal = self.blend(previous.float(), thermal.float())
        return thermal.float()

    def _block(self, features: Tensor, condition: ConditionFeatures, resolution: int) -> Tensor:
        features = self.condition.concatenate(features, condition)
        features = pixel_norm(F.leaky_relu(self.first_conv[str(resolution)](features), 0.2))
        if resolution > BASE_RESOLUTION:
            features = pixel_norm(F.leaky_relu(self.second_conv[str(resolution)](features), 0.2))
        return features
