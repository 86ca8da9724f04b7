"""WGAN-GP: Improved Training of Wasserstein GANs.

Gulrajani et al., NeurIPS 2017. https://arxiv.org/abs/1704.00028

WGAN with a gradient penalty in place of weight clipping: between real and generated images the norm
of the critic's gradient should be 1. Both networks are residual. The critic uses layer
normalization, because batch normalization would invalidate the penalty.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.additions import DecoderConfig, scored_images, similarity_terms
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
from thermal_search.networks.condition import RgbEncoder
from thermal_search.networks.initialization import normalization

BASE_RESOLUTION = 4
"""Height and width of the smallest features."""


@final
class WGANGP(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
        generator_lr: float = 1e-4
        critic_lr: float = 1e-4
        beta1: float = 0.0
        beta2: float = 0.9
        """Adam's beta2, of both players."""

        penalty_weight: float = 10.0
        penalty: Literal["two-sided", "one-sided"] = "two-sided"
        """Whether gradient norms below 1 are penalized too."""

        n_critic: int = 5
        """Critic turns per generator turn, each on a new batch."""

        critic_norm: Literal["layer", "none"] = "layer"
        latent_size: int = 128
        width: int = 64
        """Channels at full size, of both networks; each downsampling doubles them, up to 8x."""

        condition_channels: int = 32
        """Channels of the RGB condition at each resolution of the generator; 0: the 3 of RGB."""

        lr_decay: bool = False
        """Whether the learning rates fall linearly to 0, as in the paper's CIFAR-10 runs."""

        batch_size: int = 64

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = _initialize(
            ResidualGenerator(
                size=config.size,
                latent_size=config.latent_size,
                width=config.width,
                condition_channels=config.condition_channels,
                rgb_encoder=config.rgb_encoder,
            )
        )
        self.critic = _initialize(
            ResidualCritic(size=config.size, width=config.width, norm=config.critic_norm)
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    draw_latent = normal_latent

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (self.config.beta1, self.config.beta2)
        return {
            "critic": adam_player(self.critic, lr=config.critic_lr, betas=betas),
            "generator": adam_player(self.generator, lr=config.generator_lr, betas=betas),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        for _ in range(config.n_critic):
            batch = next(batches)
            with torch.no_grad():
                fake = self.translate(batch.rgb)
            yield Turn("critic", self._critic_terms(batch, fake))

        batch = next(batches)
        fake = self.translate(batch.rgb)
        terms = {"adversarial": wasserstein.generator(self._score(batch.rgb, fake))}
        terms |= similarity_terms(config, fake, batch.thermal)
        yield Turn("generator", terms)

    def _critic_terms(self, batch: Batch, fake: Thermal) -> dict[str, Tensor]:
        # One pass for both, because the critic does not couple images.
        rgb = torch.cat([batch.rgb, batch.rgb])
        real_score, fake_score = self._score(rgb, torch.cat([batch.thermal, fake])).chunk(2)
        penalty = gradient_penalty(
            lambda thermal: self._score(batch.rgb, thermal),
            batch.thermal,
            fake,
            one_sided=self.config.penalty == "one-sided",
        )
        return {
            "wasserstein": wasserstein.discriminator(real_score, fake_score),
            "penalty": self.config.penalty_weight * penalty,
        }

    def _score(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.critic(torch.cat(scored_images(self.config, rgb, thermal), dim=1))

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        start = 0.0 if self.config.lr_decay else 1.0
        return translator.constant_then_linear(images, budget_images, start)


def resnet_channels(size: int, width: int) -> dict[int, int]:
    """Channels by resolution, from 4 to `size`: `width` at `size`, doubled per halving up to 8x."""
    resolutions = [
        BASE_RESOLUTION * 2**step for step in range((size // BASE_RESOLUTION).bit_length())
    ]
    return {r: min(width * size // r, 8 * width) for r in resolutions}


class ResidualGenerator(nn.Module):
    """A dense layer to 4 x 4, then residual blocks that double the resolution.

    With `condition_channels` None it is the paper's unconditional network.
    """

    def __init__(
        self,
        *,
        size: int,
        latent_size: int = 128,
        width: int = 64,
        condition_channels: int | None = 32,
        rgb_encoder: RgbEncoder = "pooled",
    ) -> None:
        super().__init__()
        channels = resnet_channels(size, width)
        self.condition = ConditionPyramid(
            list(channels)[:-1], condition_channels, encoder=rgb_encoder, size=size
        )
        extra = self.condition.channels
        self.root = nn.Linear(latent_size, channels[BASE_RESOLUTION] * BASE_RESOLUTION**2)
        self.blocks = nn.ModuleList(
            UpBlock(in_channels + extra, channels[2 * resolution])
            for resolution, in_channels in channels.items()
            if resolution < size
        )
        self.output = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 1, 3, 1, 1), nn.Tanh()
        )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        features = self.root(z).unflatten(1, (-1, BASE_RESOLUTION, BASE_RESOLUTION))
        condition = self.condition.encode(rgb)
        for block in self.blocks:
            features = block(self.condition.concatenate(features, condition))
        return self.output(features).float()


class UpBlock(nn.Module):
    """Doubles the resolution: a residual block with nearest-neighbor upsampling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU())
        self.convolution = nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False)
        self.second = nn.Sequential(
            nn.BatchNorm2d(out_channels), nn.ReLU(), nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        # Convolved before upsampling, which is equivalent for 1 x 1 and costs a quarter.
        shortcut = F.interpolate(self.shortcut(features), scale_factor=2)
        hidden = self.convolution(F.interpolate(self.first(features), scale_factor=2))
        return shortcut + self.second(hidden)


class ResidualCritic(nn.Module):
    """Residual blocks that halve the resolution down to 4 x 4, then one score."""

    def __init__(
        self, *, size: int, in_channels: int = 4, width: int = 64, norm: str = "layer"
    ) -> None:
        super().__init__()
        channels = resnet_channels(size, width)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 1, 1),
            *(
                DownBlock(channels[2 * resolution], out_channels, norm)
                for resolution, out_channels in reversed(channels.items())
                if resolution < size
            ),
        )
        self.head = nn.Linear(channels[BASE_RESOLUTION] * BASE_RESOLUTION**2, 1)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch"]:
        return self.head(self.layers(images).flatten(1)).flatten().float()


class DownBlock(nn.Module):
    """Halves the resolution: a residual block with 2 x 2 average pooling."""

    def __init__(self, in_channels: int, out_channels: int, norm: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            normalization(norm, in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, in_channels, 3, 1, 1, bias=False),
            normalization(norm, in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1),
        )
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        # Convolved after pooling, which is equivalent for 1 x 1 and costs a quarter.
        shortcut = self.shortcut(F.avg_pool2d(features, 2))
        return shortcut + F.avg_pool2d(self.layers(features), 2)


def _initialize(network: nn.Module) -> nn.Module:
    """He initialization for residual convolutions, Glorot elsewhere; uniform, as in the release."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in network.modules():
        if isinstance(block, (UpBlock, DownBlock)):
            for module in block.modules():
                if isinstance(module, nn.Conv2d) and module is not block.shortcut:
                    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
    return network
