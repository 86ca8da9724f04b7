"""WGAN-GP: Improved Training of Wasserstein GANs.

Gulrajani et al., NeurIPS 2017. https://arxiv.org/abs/1704.00028

WGAN's game with a penalty in place of clipping: on the way from a real to a painted image the
critic's slope should be 1. Residual networks on both sides; the critic normalizes each image by
itself, for batch normalization would make the penalty meaningless.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.translator import (
    Player,
    Translator,
    Turn,
    adam_player,
    l1_terms,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import gradient_penalty, wasserstein
from thermal_search.networks import ConditionPyramid

BASE_RESOLUTION = 4
"""Height and width of the smallest features."""


@final
class WGANGP(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.L1Config):
        generator_lr: float = 1e-4
        critic_lr: float = 1e-4
        beta1: float = 0.0
        beta2: float = 0.9
        """Adam's decay rates, of both players."""

        penalty_weight: float = 10.0
        penalty: Literal["two-sided", "one-sided"] = "two-sided"
        """Whether slopes below 1 are penalised too."""

        n_critic: int = 5
        """Critic turns for one generator turn, each on fresh images."""

        critic_norm: Literal["layer", "none"] = "layer"
        latent_size: int = 128
        width: int = 64
        """Channels at full size, of both networks; doubled inwards up to eight times that."""

        condition_channels: int = 32
        """Channels by which the generator sees the RGB image at each scale; 0: its 3 colors."""

        decay: bool = False
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
            yield Turn("critic", self._discriminator_loss(batch, fake))

        batch = next(batches)
        fake = self.translate(batch.rgb)
        score = self.critic(torch.cat([batch.rgb, fake], dim=1))
        terms = {"adversarial": wasserstein.generator(score)}
        terms |= l1_terms(config, fake, batch.thermal)
        yield Turn("generator", terms)

    def _discriminator_loss(self, batch: Batch, fake: Thermal) -> dict[str, Tensor]:
        # One pass for both: nothing in the critic couples images.
        rgb = torch.cat([batch.rgb, batch.rgb])
        pairs = torch.cat([rgb, torch.cat([batch.thermal, fake])], dim=1)
        real_score, fake_score = self.critic(pairs).chunk(2)
        penalty = gradient_penalty(
            lambda thermal: self.critic(torch.cat([batch.rgb, thermal], dim=1)),
            batch.thermal,
            fake,
            one_sided=self.config.penalty == "one-sided",
        )
        return {
            "wasserstein": wasserstein.discriminator(real_score, fake_score),
            "penalty": self.config.penalty_weight * penalty,
        }

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        start = 0.0 if self.config.decay else 1.0
        return translator.constant_then_linear(images, budget_images, start)


def channels_by_resolution(size: int, width: int) -> dict[int, int]:
    """Channels by resolution, from 4 to `size`: `width` there, doubled inwards up to 8 times."""
    resolutions = [
        BASE_RESOLUTION * 2**step for step in range((size // BASE_RESOLUTION).bit_length())
    ]
    return {r: min(width * size // r, 8 * width) for r in resolutions}


class ResidualGenerator(nn.Module):
    """A dense layer to 4 x 4, then residual blocks that double the size."""

    def __init__(
        self,
        *,
        size: int,
        latent_size: int = 128,
        width: int = 64,
        condition_channels: int | None = 32,
    ) -> None:
        super().__init__()
        channels = channels_by_resolution(size, width)
        self.condition = ConditionPyramid(list(channels)[:-1], condition_channels)
        extra = self.condition.channels
        self.root = nn.Linear(latent_size, channels[BASE_RESOLUTION] * BASE_RESOLUTION**2)
        self.blocks = nn.ModuleList(
            UpBlock(wide + extra, channels[2 * resolution])
            for resolution, wide in channels.items()
            if resolution < size
        )
        self.output = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 1, 3, 1, 1), nn.Tanh()
        )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        features = self.root(z).unflatten(1, (-1, BASE_RESOLUTION, BASE_RESOLUTION))
        for block in self.blocks:
            features = block(self.condition.concatenate(features, rgb))
        return self.output(features).float()


class UpBlock(nn.Module):
    """Twice the size: nearest neighbors, then two convolutions beside one of 1 x 1."""

    def __init__(self, before: int, wide: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(before), nn.ReLU())
        self.convolution = nn.Conv2d(before, wide, 3, 1, 1, bias=False)
        self.second = nn.Sequential(nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, wide, 3, 1, 1))
        self.shortcut = nn.Conv2d(before, wide, 1)

    def forward(self, features: Tensor) -> Tensor:
        # 1 x 1 convolution and repetition commute; this way round it costs a quarter.
        shortcut = F.interpolate(self.shortcut(features), scale_factor=2)
        seen = self.convolution(F.interpolate(self.first(features), scale_factor=2))
        return shortcut + self.second(seen)


class ResidualCritic(nn.Module):
    """Residual blocks that halve the size to 4 x 4, then one score."""

    def __init__(
        self, *, size: int, in_channels: int = 4, width: int = 64, norm: str = "layer"
    ) -> None:
        super().__init__()
        channels = channels_by_resolution(size, width)
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, width, 3, 1, 1),
            *(
                DownBlock(channels[2 * resolution], wide, norm)
                for resolution, wide in reversed(channels.items())
                if resolution < size
            ),
        )
        self.head = nn.Linear(channels[BASE_RESOLUTION] * BASE_RESOLUTION**2, 1)

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch"]:
        return self.head(self.layers(images).flatten(1)).flatten().float()


class DownBlock(nn.Module):
    """Half the size: two convolutions and a mean over 2 x 2, beside the same of 1 x 1."""

    def __init__(self, before: int, wide: int, norm: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _per_image(norm, before),
            nn.ReLU(),
            nn.Conv2d(before, before, 3, 1, 1, bias=False),
            _per_image(norm, before),
            nn.ReLU(),
            nn.Conv2d(before, wide, 3, 1, 1),
        )
        self.shortcut = nn.Conv2d(before, wide, 1)

    def forward(self, features: Tensor) -> Tensor:
        # The mean first: it commutes with a 1 x 1 convolution, which then costs a quarter.
        shortcut = self.shortcut(F.avg_pool2d(features, 2))
        return shortcut + F.avg_pool2d(self.layers(features), 2)


def _per_image(norm: str, channels: int) -> nn.Module:
    """Layer normalization over an image's channels and pixels, or nothing."""
    return nn.GroupNorm(1, channels) if norm == "layer" else nn.Identity()


def _initialize(network: nn.Module) -> nn.Module:
    """He's in the residual convolutions, Glorot's elsewhere, uniform, as in the release."""
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
