"""StyleGAN: A Style-Based Generator Architecture for Generative Adversarial Networks.

Karras et al., CVPR 2019. https://arxiv.org/abs/1812.04948

The latent never enters the image's own layers: mapped to a style, it sets the mean and spread of
every layer's features, and noise adds the detail that is left to chance. Progressive GAN's growth
and discriminator, with the logistic game and a penalty on the slope at real images (R1).
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
from thermal_search.losses import pixel_loss, r1_penalty
from thermal_search.networks import ConditionPyramid
from thermal_search.networks.progressive import (
    BASE_RESOLUTION,
    Blur,
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

THUMBNAIL_SIZE = 8
"""Height and width of the RGB image as the mapping sees it."""

W_AVG_BETA = 0.995
"""How much of the mean style is kept at each step."""


@final
class StyleGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.Config):
        learning_rate: float = 1e-3
        """Of both players, by Adam with decay rates 0 and 0.99."""

        r1_gamma: float = 10.0
        """Twice the weight of the squared slope at real pairs."""

        r1_every: int = 1
        """Steps between two penalties, each then that much heavier ("lazy", StyleGAN2)."""

        mapping_layers: int = 8
        mapping_lr_multiplier: float = 0.01
        condition_mapping: bool = True
        """Whether the style depends on the RGB image too. Normalization takes an image's overall
        level out of the features: only styles can put an absolute temperature back."""

        latent_size: int = 512
        style_size: int = 512
        style_mixing: float = 0.9
        """Share of steps in which an image's later layers take another latent's style."""

        noise: bool = True
        truncation: float = 1.0
        """How far styles may be from their mean when a trained network paints; 1: as far as they
        are. Never in training."""

        channel_base: int = 8192
        """Channels times half the resolution, where they are not capped at 512."""

        condition_channels: int = 32
        """Channels by which the generator sees the RGB image at each scale; 0: its 3 colors."""

        growing: bool = True
        growth_share: float = 0.65
        """Share of the budget by whose end full size is reached."""

        start_resolution: int = 8
        fade_share: float = 0.5
        """Share of each resolution's time in which the next one fades in."""

        l1: bool = False
        """Whether the generator also minimizes the absolute error; no part of the paper."""

        l1_weight: float = 100.0
        batch_size: int = 16
        ema_half_life_images: int = 10_000

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        start = self._growth(0.0)
        self.generator = StyleGenerator(
            size=config.size,
            start=start,
            latent_size=config.latent_size,
            style_size=config.style_size,
            mapping_layers=config.mapping_layers,
            mapping_lr_multiplier=config.mapping_lr_multiplier,
            condition_mapping=config.condition_mapping,
            condition_channels=config.condition_channels,
            base=config.channel_base,
            has_noise=config.noise,
            style_mixing=config.style_mixing,
            truncation=config.truncation,
        )
        self.discriminator = GrowingDiscriminator(
            size=config.size, start=start, base=config.channel_base, blurred=True
        )
        self.steps = 0
        self.is_penalised = True

    def _growth(self, share: float) -> Growth:
        config = self.config
        if not config.growing:
            return Growth(config.size, 1.0)
        return growth_at(
            share,
            start=min(config.start_resolution, config.size),
            size=config.size,
            growing=config.growth_share,
            fading=config.fade_share,
        )

    def begin_step(self, images: int, budget_images: int) -> bool:
        growth = self._growth(images / budget_images)
        assert isinstance(self.generator, StyleGenerator)
        has_doubled = growth.resolution > self.generator.growth.resolution
        self.generator.growth = self.discriminator.growth = growth
        self.is_penalised = self.steps % self.config.r1_every == 0
        self.steps += 1
        return has_doubled

    def graph_key(self) -> Hashable:
        judge = self.discriminator
        return judge.growth.resolution, judge.is_fading, self.is_penalised

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return at_full_size(self.generator(rgb, self.latent_for(rgb, z)), self.config.size)

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        return torch.randn(count, self.config.latent_size, generator=random, device=device)

    def players(self) -> Mapping[str, Player]:
        config = self.config
        # A penalty every k steps makes k + 1 passes of k: Adam moves that much less (StyleGAN2).
        lazy = config.r1_every / (config.r1_every + 1) if config.r1_every > 1 else 1.0
        return {
            "discriminator": Player(
                (self.discriminator,),
                OptimizerConfig(
                    algorithm="adam", lr=config.learning_rate * lazy, betas=(0.0, 0.99**lazy)
                ),
            ),
            "generator": Player(
                (self.generator,),
                OptimizerConfig(algorithm="adam", lr=config.learning_rate, betas=(0.0, 0.99)),
            ),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        batch = next(batches)
        rgb, real = (self.discriminator.shown(images) for images in (batch.rgb, batch.thermal))
        fake = self.generator(batch.rgb, self.latent_for(rgb, None))

        yield Turn("discriminator", self._discriminator_loss(rgb, real, fake.detach()))

        terms = {"adversarial": F.softplus(-self.discriminator(rgb, fake)).mean()}
        if config.l1:
            terms["l1"] = pixel_loss(fake, real, config.l1_weight)
        yield Turn("generator", terms)

    def _discriminator_loss(self, rgb: Rgb, real: Thermal, fake: Thermal) -> dict[str, Tensor]:
        config = self.config
        fake_score = self.discriminator(rgb, fake)
        if not self.is_penalised:
            real_score = self.discriminator(rgb, real)
            return {"adversarial": _tell_apart(real_score, fake_score)}
        # One pass serves the score and the penalty: in float32, for it is differentiated twice.
        real = real.requires_grad_(True)
        with torch.autocast(real.device.type, enabled=False):
            real_score = self.discriminator(rgb, real)
        weight = 0.5 * config.r1_gamma * config.r1_every
        return {
            "adversarial": _tell_apart(real_score, fake_score),
            "penalty": weight * r1_penalty(real_score, real),
        }

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def _tell_apart(real_score: Tensor, fake_score: Tensor) -> Tensor:
    return F.softplus(fake_score).mean() + F.softplus(-real_score).mean()


class StyleGenerator(ProgressiveNetwork):
    """A learned constant, doubled to the resolution reached, its layers styled by the latent."""

    def __init__(
        self,
        *,
        size: int,
        start: Growth,
        latent_size: int = 512,
        style_size: int = 512,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        condition_mapping: bool = True,
        condition_channels: int | None = 32,
        base: int = 8192,
        has_noise: bool = True,
        style_mixing: float = 0.9,
        truncation: float = 1.0,
    ) -> None:
        super().__init__(start)
        self.latent_size, self.style_mixing, self.truncation = latent_size, style_mixing, truncation
        self.map = StyleMapping(
            latent_size=latent_size,
            style_size=style_size,
            layers=mapping_layers,
            lr_multiplier=mapping_lr_multiplier,
            conditional=condition_mapping and condition_channels is not None,
        )
        channels = channels_by_resolution(size, base)
        self.condition = None
        extra = 0
        if condition_channels is not None:
            self.condition = ConditionPyramid(list(channels), condition_channels)
            extra = self.condition.channels
        self.constant = nn.Parameter(
            torch.ones(1, channels[BASE_RESOLUTION], BASE_RESOLUTION, BASE_RESOLUTION)
        )
        self.blur = Blur()
        self.first = nn.ModuleDict()
        self.second = nn.ModuleDict()
        self.styles = nn.ModuleDict()
        self.paint = nn.ModuleDict()
        for resolution, wide in channels.items():
            r, before = str(resolution), channels[max(resolution // 2, BASE_RESOLUTION)]
            # At the root the constant stands where elsewhere the first convolution is.
            if resolution > BASE_RESOLUTION:
                self.first[r] = EqualizedConv2d(before + extra, wide, 3)
                self.second[r] = EqualizedConv2d(wide, wide, 3)
            else:
                self.second[r] = EqualizedConv2d(wide + extra, wide, 3)
            for place in ("first", "second"):
                styled = Styled(wide, style_size, resolution, has_noise, seed=len(self.styles))
                self.styles[f"{r} {place}"] = styled
            self.paint[r] = EqualizedConv2d(wide, 1, 1, gain=1.0)

    def forward(self, rgb: Rgb, z: Latent) -> Float[Tensor, "batch 1 rows columns"]:
        """Images of the resolution of `growth`. Linear: only what leaves the trial is clipped."""
        resolution = self.growth.resolution
        styles = self._styles(rgb, z, layers=2 * (resolution // BASE_RESOLUTION).bit_length())
        features = self.constant.expand(len(rgb), -1, -1, -1)
        coarse, reached = features, BASE_RESOLUTION
        while True:
            r = str(reached)
            if reached > BASE_RESOLUTION:
                features = self.blur(self.first[r](self._beside(features, rgb)))
            features = self.styles[f"{r} first"](features, next(styles))
            if reached == BASE_RESOLUTION:
                features = self._beside(features, rgb)
            features = self.styles[f"{r} second"](self.second[r](features), next(styles))
            if reached == resolution:
                break
            coarse, reached = features, reached * 2
            features = F.interpolate(features, scale_factor=2)
        thermal = self.paint[str(resolution)](features)
        if self.is_fading:
            before = F.interpolate(self.paint[str(resolution // 2)](coarse), scale_factor=2)
            thermal = self.mix(before.float(), thermal.float())
        return thermal.float()

    def _beside(self, features: Tensor, rgb: Rgb) -> Tensor:
        return self.condition.concatenate(features, rgb) if self.condition else features

    def _styles(self, rgb: Rgb, z: Latent, layers: int) -> Iterator[Tensor]:
        """One style a layer; in training, often of two latents that meet at a random layer."""
        style = self.map(rgb, z)
        if not self.training:
            style = torch.lerp(self.map.running_w, style, self.truncation)
            return iter([style] * layers)
        self.map.remember(style)
        if not self.style_mixing:
            return iter([style] * layers)
        # Chosen on the device, which would have to be waited for otherwise.
        other = self.map(rgb, torch.randn_like(z))
        mixes = torch.rand((), device=z.device) < self.style_mixing
        crossing = torch.randint(1, layers, (), device=z.device)
        crossing = torch.where(mixes, crossing, layers)
        return iter([torch.where(layer < crossing, style, other) for layer in range(layers)])


class StyleMapping(nn.Module):
    """A latent, and a glance at the RGB image, to a style."""

    def __init__(
        self,
        *,
        latent_size: int,
        style_size: int,
        layers: int,
        lr_multiplier: float,
        conditional: bool,
    ) -> None:
        super().__init__()
        self.glance = None
        before = latent_size
        if conditional:
            self.glance = EqualizedLinear(3 * THUMBNAIL_SIZE**2, latent_size, gain=1.0)
            before += latent_size
        self.layers = nn.Sequential()
        for _ in range(layers):
            self.layers.append(EqualizedLinear(before, style_size, lr_multiplier=lr_multiplier))
            self.layers.append(nn.LeakyReLU(0.2))
            before = style_size
        self.running_w: Tensor
        self.register_buffer("running_w", torch.zeros(style_size))

    def forward(self, rgb: Rgb, z: Latent) -> Float[Tensor, "batch style"]:
        seen = pixel_norm(z)
        if self.glance:
            glance = F.adaptive_avg_pool2d(rgb, THUMBNAIL_SIZE).flatten(1)
            seen = torch.cat([seen, self.glance(glance)], dim=1)
        return self.layers(seen).float()

    @torch.no_grad()
    def remember(self, style: Tensor) -> None:
        """Moves the mean style, which truncation holds on to."""
        self.running_w.lerp_(style.mean(0), 1 - W_AVG_BETA)


class Styled(nn.Module):
    """What follows a convolution: noise, bias, rectifier, and the style's mean and spread."""

    def __init__(
        self,
        channels: int,
        style_size: int,
        resolution: int,
        has_noise: bool,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(channels, 1, 1)) if has_noise else None
        self.style = EqualizedLinear(style_size, 2 * channels, gain=1.0)
        self.noise: Tensor
        if has_noise:
            # Another for each layer, as in training.
            random = torch.Generator().manual_seed(seed)
            fixed = torch.randn(1, 1, resolution, resolution, generator=random, device="cpu")
            self.register_buffer("noise", fixed)

    def forward(self, features: Tensor, style: Tensor) -> Tensor:
        if self.noise_strength is not None:
            # Fixed when judged: an image is then a function of its RGB and its latent.
            noise = torch.randn_like(features[:, :1]) if self.training else self.noise
            features = features + self.noise_strength * noise
        features = F.instance_norm(F.leaky_relu(features, 0.2))
        scale, shift = self.style(style)[:, :, None, None].chunk(2, dim=1)
        return features * (1 + scale) + shift
