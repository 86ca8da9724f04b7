"""StyleGAN: A Style-Based Generator Architecture for Generative Adversarial Networks.

Karras et al., CVPR 2019. https://arxiv.org/abs/1812.04948

A mapping network maps the latent z to an intermediate latent w. Synthesis starts from a learned
constant; w sets the mean and standard deviation of each layer's features (AdaIN), and noise adds
stochastic detail. Progressive GAN's growing and discriminator, with the non-saturating logistic
loss and an R1 penalty.
"""

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
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
from thermal_search.losses import r1_penalty
from thermal_search.networks import ConditionPyramid
from thermal_search.networks.condition import RgbEncoder
from thermal_search.networks.progressive import (
    BASE_RESOLUTION,
    BlurredConv2d,
    EqualizedConv2d,
    EqualizedLinear,
    Growth,
    GrowthSchedule,
    ProgressiveDiscriminator,
    ProgressiveNetwork,
    at_full_size,
    grow,
    pixel_norm,
    progressive_channels,
)

THUMBNAIL_SIZE = 8
"""Height and width of the RGB image that conditions the mapping network."""

W_AVG_BETA = 0.995
"""Decay per step of the moving average of w."""

LEARNING_RATE_FACTORS = {128: 1.5, 256: 2.0, 512: 3.0, 1024: 3.0}
"""By resolution, as in the authors' code."""


@final
class StyleGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(GrowthConfig):
        generator_lr: float = 1e-3
        discriminator_lr: float = 1e-3
        """Both with Adam's decay rates 0 and 0.99; 1.5, 2 and 3 times as much at 128, 256 and 512
        pixels."""

        r1_gamma: float = 10.0
        """Twice the weight of the R1 penalty."""

        r1_interval: int = 1
        """Steps from one R1 penalty to the next, whose weight it multiplies (StyleGAN2's lazy
        regularization)."""

        mapping_layers: int = 8
        mapping_lr_multiplier: float = 0.01
        condition_mapping: bool = True
        """Whether the mapping network also takes the RGB image. Instance normalization removes the
        mean of an image's features; only through w can the RGB image set an absolute temperature.
        """

        latent_size: int = 512
        w_size: int = 512
        """Dimensions of the intermediate latent w."""

        style_mixing_probability: float = 0.9
        """Probability that a step's later layers take the w of another latent."""

        noise: bool = True
        """Whether each layer adds noise."""

        truncation: float = 1.0
        """Truncation psi: outside training, w is moved to this fraction of its distance from the
        mean w; 1: no truncation."""

        channel_base: int = 8192
        """Resolution r has min(2 * channel_base // r, 512) channels."""

        condition_channels: int = 32
        """Channels of the generator's RGB features at each resolution; 0: the RGB image itself."""

        growing: bool = True
        """Whether the networks grow from `start_resolution`; False: they have the full size from
        the start."""

        start_resolution: int = 8
        ema_half_life_images: int = 10_000

        @property
        def schedule(self) -> GrowthSchedule:
            schedule = super().schedule
            return schedule if self.growing else replace(schedule, start_resolution=self.size)

    config: Config
    needs_pairs: ClassVar[bool] = True
    grows: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.schedule = config.schedule
        start = self.schedule.at(0.0)
        self.generator = StyleGenerator(
            size=config.size,
            start=start,
            latent_size=config.latent_size,
            w_size=config.w_size,
            mapping_layers=config.mapping_layers,
            mapping_lr_multiplier=config.mapping_lr_multiplier,
            condition_mapping=config.condition_mapping,
            condition_channels=config.condition_channels,
            rgb_encoder=config.rgb_encoder,
            channel_base=config.channel_base,
            has_noise=config.noise,
            style_mixing_probability=config.style_mixing_probability,
            truncation=config.truncation,
        )
        self.discriminator = ProgressiveDiscriminator(
            size=config.size, start=start, channel_base=config.channel_base, blur=True
        )
        self.steps = 0
        self.applies_r1 = True
        """Whether the current step has an R1 penalty."""

    def begin_step(self, images: int, budget_images: int) -> bool:
        self.applies_r1 = self.steps % self.config.r1_interval == 0
        self.steps += 1
        assert isinstance(self.generator, StyleGenerator)
        return grow(self.schedule.at(images / budget_images), self.generator, self.discriminator)

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return growing_learning_rate_factor(
            self.config, LEARNING_RATE_FACTORS, images, budget_images
        )

    def graph_key(self) -> Hashable:
        discriminator = self.discriminator
        return discriminator.growth.resolution, discriminator.is_fading, self.applies_r1

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return at_full_size(self.generator(rgb, self.latent_for(rgb, z)), self.config.size)

    draw_latent = normal_latent

    def players(self) -> Mapping[str, Player]:
        config = self.config
        # Lazy regularization: k steps make k + 1 backward passes, so Adam's settings are scaled by
        # k / (k + 1), as in StyleGAN2.
        k = config.r1_interval
        lazy = k / (k + 1) if k > 1 else 1.0
        return {
            "discriminator": adam_player(
                self.discriminator, lr=config.discriminator_lr * lazy, betas=(0.0, 0.99**lazy)
            ),
            "generator": adam_player(self.generator, lr=config.generator_lr, betas=(0.0, 0.99)),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        batch = next(batches)
        rgb, real = map(self.discriminator.downsample, (batch.rgb, batch.thermal))
        fake = self.generator(batch.rgb, self.latent_for(rgb, None))

        yield Turn("discriminator", self._discriminator_loss(rgb, real, fake.detach()))

        terms = {"adversarial": F.softplus(-self._score(rgb, fake)).mean()}
        yield Turn("generator", terms | similarity_terms(config, fake, real))

    def _discriminator_loss(self, rgb: Rgb, real: Thermal, fake: Thermal) -> dict[str, Tensor]:
        config = self.config
        fake_score = self._score(rgb, fake)
        if not self.applies_r1:
            real_score = self._score(rgb, real)
            return {"adversarial": _logistic_loss(real_score, fake_score)}
        # One pass serves both terms; in float32, because the penalty is differentiated twice.
        real = real.requires_grad_(True)
        with torch.autocast(real.device.type, enabled=False):
            real_score = self._score(rgb, real)
        weight = 0.5 * config.r1_gamma * config.r1_interval
        return {
            "adversarial": _logistic_loss(real_score, fake_score),
            "penalty": weight * r1_penalty(real_score, real),
        }

    def _score(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.discriminator(*scored_images(self.config, rgb, thermal))

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def _logistic_loss(real_score: Tensor, fake_score: Tensor) -> Tensor:
    return F.softplus(fake_score).mean() + F.softplus(-real_score).mean()


class StyleGenerator(ProgressiveNetwork):
    """Upsamples a learned constant to the resolution reached; w modulates every layer."""

    def __init__(
        self,
        *,
        size: int,
        start: Growth,
        latent_size: int = 512,
        w_size: int = 512,
        mapping_layers: int = 8,
        mapping_lr_multiplier: float = 0.01,
        condition_mapping: bool = True,
        condition_channels: int | None = 32,
        rgb_encoder: RgbEncoder = "pooled",
        channel_base: int = 8192,
        has_noise: bool = True,
        style_mixing_probability: float = 0.9,
        truncation: float = 1.0,
    ) -> None:
        super().__init__(start)
        self.style_mixing_probability, self.truncation = style_mixing_probability, truncation
        self.mapping = MappingNetwork(
            latent_size=latent_size,
            w_size=w_size,
            layers=mapping_layers,
            lr_multiplier=mapping_lr_multiplier,
            is_conditional=condition_mapping and condition_channels is not None,
        )
        channels = progressive_channels(size, channel_base)
        self.condition = ConditionPyramid(
            list(channels), condition_channels, encoder=rgb_encoder, size=size
        )
        rgb_channels = self.condition.channels
        self.constant = nn.Parameter(
            torch.ones(1, channels[BASE_RESOLUTION], BASE_RESOLUTION, BASE_RESOLUTION)
        )
        self.first_conv = nn.ModuleDict()
        self.second_conv = nn.ModuleDict()
        self.epilogues = nn.ModuleDict()
        self.to_thermal = nn.ModuleDict()
        for resolution, width in channels.items():
            r = str(resolution)
            # At the base resolution the constant replaces the first convolution.
            if resolution > BASE_RESOLUTION:
                in_channels = channels[resolution // 2] + rgb_channels
                self.first_conv[r] = BlurredConv2d(in_channels, width, 3)
                self.second_conv[r] = EqualizedConv2d(width, width, 3)
            else:
                self.second_conv[r] = EqualizedConv2d(width + rgb_channels, width, 3)
            for layer in ("first", "second"):
                self.epilogues[f"{r}_{layer}"] = LayerEpilogue(
                    width, w_size, resolution, has_noise, seed=len(self.epilogues)
                )
            self.to_thermal[r] = EqualizedConv2d(width, 1, 1, gain=1.0)

    def forward(self, rgb: Rgb, z: Latent) -> Float[Tensor, "batch 1 rows columns"]:
        """Images at the resolution of `growth`, not clipped to -1 .. 1."""
        resolution = self.growth.resolution
        ws = self._w_per_layer(rgb, z, layers=2 * (resolution // BASE_RESOLUTION).bit_length())
        condition = self.condition.encode(rgb)
        # Not `len`, which fixes the batch size of an exported network.
        features = self.constant.expand(rgb.shape[0], -1, -1, -1)
        coarse, reached = features, BASE_RESOLUTION
        while True:
            r = str(reached)
            if reached > BASE_RESOLUTION:
                features = self.condition.concatenate(features, condition)
                features = self.first_conv[r](features)
            features = self.epilogues[f"{r}_first"](features, next(ws))
            if reached == BASE_RESOLUTION:
                features = self.condition.concatenate(features, condition)
            features = self.epilogues[f"{r}_second"](self.second_conv[r](features), next(ws))
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

    def _w_per_layer(self, rgb: Rgb, z: Latent, layers: int) -> Iterator[Tensor]:
        """One w for each layer. With style mixing, layers from a random one on use a second w."""
        w = self.mapping(rgb, z)
        if not self.training:
            w = torch.lerp(self.mapping.running_w, w, self.truncation)
            return iter([w] * layers)
        self.mapping.update_running_w(w)
        if not self.style_mixing_probability:
            return iter([w] * layers)
        # Chosen on the device: a choice on the host would have to wait for it.
        other_w = self.mapping(rgb, torch.randn_like(z))
        is_mixed = torch.rand((), device=z.device) < self.style_mixing_probability
        crossover = torch.randint(1, layers, (), device=z.device)
        crossover = torch.where(is_mixed, crossover, layers)
        return iter([torch.where(layer < crossover, w, other_w) for layer in range(layers)])


class MappingNetwork(nn.Module):
    """Maps a latent z, and a thumbnail of the RGB image if `is_conditional`, to w."""

    def __init__(
        self,
        *,
        latent_size: int,
        w_size: int,
        layers: int,
        lr_multiplier: float,
        is_conditional: bool,
    ) -> None:
        super().__init__()
        self.embed_rgb = None
        in_features = latent_size
        if is_conditional:
            self.embed_rgb = EqualizedLinear(3 * THUMBNAIL_SIZE**2, latent_size, gain=1.0)
            in_features += latent_size
        self.layers = nn.Sequential()
        for _ in range(layers):
            self.layers.append(EqualizedLinear(in_features, w_size, lr_multiplier=lr_multiplier))
            self.layers.append(nn.LeakyReLU(0.2))
            in_features = w_size
        self.running_w: Tensor
        self.register_buffer("running_w", torch.zeros(w_size))

    def forward(self, rgb: Rgb, z: Latent) -> Float[Tensor, "batch w_size"]:
        features = z
        if self.embed_rgb:
            thumbnail = F.adaptive_avg_pool2d(rgb, THUMBNAIL_SIZE).flatten(1)
            features = torch.cat([features, self.embed_rgb(thumbnail)], dim=1)
        # Normalized together, as the authors' code does with the embedding of a class.
        return self.layers(pixel_norm(features)).float()

    @torch.no_grad()
    def update_running_w(self, w: Tensor) -> None:
        """Updates the moving average of w, to which truncation pulls."""
        self.running_w.lerp_(w.mean(0), 1 - W_AVG_BETA)


class LayerEpilogue(nn.Module):
    """What follows each convolution: noise, leaky ReLU and AdaIN with a style computed from w."""

    def __init__(
        self,
        channels: int,
        w_size: int,
        resolution: int,
        has_noise: bool,
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.noise_strength = nn.Parameter(torch.zeros(channels, 1, 1)) if has_noise else None
        self.style = EqualizedLinear(w_size, 2 * channels, gain=1.0)
        self.noise: Tensor
        if has_noise:
            # `seed` differs between layers, so that they do not share their noise.
            random = torch.Generator().manual_seed(seed)
            fixed = torch.randn(1, 1, resolution, resolution, generator=random, device="cpu")
            self.register_buffer("noise", fixed)

    def forward(self, features: Tensor, w: Tensor) -> Tensor:
        if self.noise_strength is not None:
            # Fixed outside training: an image then depends on its RGB image and latent alone.
            noise = torch.randn_like(features[:, :1]) if self.training else self.noise
            features = features + self.noise_strength * noise
        features = F.instance_norm(F.leaky_relu(features, 0.2))
        scale, shift = self.style(w)[:, :, None, None].chunk(2, dim=1)
        return features * (1 + scale) + shift
