"""Progressive GAN: Progressive Growing of GANs for Improved Quality, Stability, and Variation.

Karras et al., ICLR 2018. https://arxiv.org/abs/1710.10196

Both networks begin with tiny images and double their size as training goes on, each new
resolution fading in. What makes it stable: equalized learning rates, features normalized at each
pixel, and a discriminator that sees how much the images of a batch differ. WGAN-GP's game.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.translator import OptimizerConfig, Player, Translator, Turn
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import gradient_penalty, pixel_loss, wasserstein
from thermal_search.networks import ConditionPyramid
from thermal_search.networks.progressive import (
    BASE_RESOLUTION,
    GAIN,
    EqualizedConv2d,
    EqualizedLinear,
    GrowingDiscriminator,
    Growth,
    ProgressiveNetwork,
    at_full_size,
    channels_by_resolution,
    growth_at,
    pixel_norm,
)


@final
class ProgressiveGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.Config):
        learning_rate: float = 1e-3
        """Of both players, by Adam with decay rates 0 and 0.99."""

        channel_base: int = 8192
        """Channels times half the resolution, where `channel_max` does not cap them."""

        channel_max: int = 512
        latent_size: int = 512
        condition_channels: int = 32
        """Channels by which the generator sees the RGB image at each scale; 0: its 3 colors."""

        penalty_weight: float = 10.0
        drift_weight: float = 1e-3
        """Weight of the squared score of real pairs, which keeps the scores near 0."""

        n_critic: int = 1
        growth_share: float = 0.65
        """Share of the budget by whose end full size is reached."""

        start_resolution: int = 4
        fade_share: float = 0.5
        """Share of each resolution's time in which the next one fades in."""

        mbstd_group_size: int = 4
        """Images compared with each other by the discriminator; 1: none."""

        l1: bool = False
        """Whether the generator also minimizes the absolute error; no part of the paper."""

        l1_weight: float = 100.0
        batch_size: int = 16
        ema_half_life_images: int = 11_000
        """The paper's 0.999 a step, at 16 images a step."""

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        start = self._growth(0.0)
        self.generator = GrowingGenerator(
            size=config.size,
            start=start,
            latent_size=config.latent_size,
            base=config.channel_base,
            most=config.channel_max,
            condition_channels=config.condition_channels,
        )
        self.discriminator = GrowingDiscriminator(
            size=config.size,
            start=start,
            base=config.channel_base,
            most=config.channel_max,
            group=config.mbstd_group_size,
        )

    def _growth(self, share: float) -> Growth:
        config = self.config
        return growth_at(
            share,
            start=min(config.start_resolution, config.size),
            size=config.size,
            growing=config.growth_share,
            fading=config.fade_share,
        )

    def begin_step(self, images: int, budget_images: int) -> bool:
        growth = self._growth(images / budget_images)
        assert isinstance(self.generator, GrowingGenerator)
        has_doubled = growth.resolution > self.generator.growth.resolution
        self.generator.growth = self.discriminator.growth = growth
        return has_doubled

    def graph_key(self) -> Hashable:
        return self.discriminator.growth.resolution, self.discriminator.is_fading

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return at_full_size(self.generator(rgb, self.latent_for(rgb, z)), self.config.size)

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        return torch.randn(count, self.config.latent_size, generator=random, device=device)

    def players(self) -> Mapping[str, Player]:
        recipe = OptimizerConfig(algorithm="adam", lr=self.config.learning_rate, betas=(0.0, 0.99))
        return {
            "discriminator": Player((self.discriminator,), recipe),
            "generator": Player((self.generator,), recipe),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        for _ in range(config.n_critic - 1):
            with torch.no_grad():
                rgb, real, fake = self._generate(next(batches))
            yield Turn("discriminator", self._discriminator_loss(rgb, real, fake))

        # The generator does not move in between: what it painted for this turn stands for its own.
        rgb, real, fake = self._generate(next(batches))
        yield Turn("discriminator", self._discriminator_loss(rgb, real, fake.detach()))
        terms = {"adversarial": wasserstein.generator(self.discriminator(rgb, fake))}
        if config.l1:
            terms["l1"] = pixel_loss(fake, real, config.l1_weight)
        yield Turn("generator", terms)

    def _generate(self, batch: Batch) -> tuple[Rgb, Thermal, Thermal]:
        """The images at the resolution reached, and a painted one."""
        shown = self.discriminator.shown
        fake = self.generator(batch.rgb, self.latent_for(batch.rgb, None))
        return shown(batch.rgb), shown(batch.thermal), fake

    def _discriminator_loss(self, rgb: Rgb, real: Thermal, fake: Thermal) -> dict[str, Tensor]:
        # Apart: the discriminator compares the images of a batch.
        real_score = self.discriminator(rgb, real)
        fake_score = self.discriminator(rgb, fake)
        penalty = gradient_penalty(lambda thermal: self.discriminator(rgb, thermal), real, fake)
        return {
            "wasserstein": wasserstein.discriminator(real_score, fake_score),
            "penalty": self.config.penalty_weight * penalty,
            "drift": self.config.drift_weight * real_score.square().mean(),
        }


class GrowingGenerator(ProgressiveNetwork):
    """A latent on the hypersphere becomes 4 x 4 features, doubled to the resolution reached."""

    def __init__(
        self,
        *,
        size: int,
        start: Growth,
        latent_size: int = 512,
        base: int = 8192,
        most: int = 512,
        condition_channels: int | None = 32,
    ) -> None:
        super().__init__(start)
        channels = channels_by_resolution(size, base, most)
        self.condition = None
        extra = 0
        if condition_channels is not None:
            self.condition = ConditionPyramid(list(channels), condition_channels)
            extra = self.condition.channels
        self.root = EqualizedLinear(
            latent_size, channels[BASE_RESOLUTION] * BASE_RESOLUTION**2, gain=GAIN / 4, bias=False
        )
        self.root_bias = nn.Parameter(torch.zeros(channels[BASE_RESOLUTION], 1, 1))
        self.first = nn.ModuleDict()
        self.second = nn.ModuleDict()
        self.paint = nn.ModuleDict()
        for resolution, wide in channels.items():
            before = channels[max(resolution // 2, BASE_RESOLUTION)] + extra
            self.first[str(resolution)] = EqualizedConv2d(before, wide, 3)
            if resolution > BASE_RESOLUTION:
                self.second[str(resolution)] = EqualizedConv2d(wide, wide, 3)
            self.paint[str(resolution)] = EqualizedConv2d(wide, 1, 1, gain=1.0)

    def forward(self, rgb: Rgb, z: Latent) -> Float[Tensor, "batch 1 rows columns"]:
        """Images of the resolution of `growth`. Linear: only what leaves the trial is clipped."""
        resolution = self.growth.resolution
        root = (
            self.root(pixel_norm(z)).unflatten(1, (-1, BASE_RESOLUTION, BASE_RESOLUTION))
            + self.root_bias
        )
        features = pixel_norm(F.leaky_relu(root, 0.2))
        coarse, reached = features, BASE_RESOLUTION
        while True:
            features = self._refine(features, rgb, reached)
            if reached == resolution:
                break
            coarse, reached = features, reached * 2
            features = F.interpolate(features, scale_factor=2)
        thermal = self.paint[str(resolution)](features)
        if self.is_fading:
            before = F.interpolate(self.paint[str(resolution // 2)](coarse), scale_factor=2)
            thermal = self.mix(before.float(), thermal.float())
        return thermal.float()

    def _refine(self, features: Tensor, rgb: Rgb, resolution: int) -> Tensor:
        if self.condition:
            features = self.condition.concatenate(features, rgb)
        features = pixel_norm(F.leaky_relu(self.first[str(resolution)](features), 0.2))
        if resolution > BASE_RESOLUTION:
            features = pixel_norm(F.leaky_relu(self.second[str(resolution)](features), 0.2))
        return features
