"""cGAN: Conditional Generative Adversarial Nets, with a discriminator that checks the match.

Mirza & Osindero 2014. https://arxiv.org/abs/1411.1784
Reed et al., Generative Adversarial Text to Image Synthesis, ICML 2016 (GAN-CLS).
https://arxiv.org/abs/1605.05396

Both networks code the RGB image by themselves and join it late. The discriminator sees three
kinds of pairs: real, painted, and real images that do not belong together, so that looking real
is not enough.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, final

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
from thermal_search.networks import ConditionPyramid, initialize
from thermal_search.networks.deep_convolutional import channels_by_resolution, downsampling

CODE = 4
"""Height and width of the coded RGB image, where it joins."""

ALIKE = 0.05
"""Pairs whose thermal images differ by less (mean absolute, in network range) are no mismatch:
neighboring frames of a recording would teach the discriminator that a true pair is false."""


@final
class CGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.L1Config):
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        """Adam's first decay rate, of both players; the second is 0.999."""

        mismatch_weight: float = 0.5
        """Weight of real but mismatched pairs among the false ones; painted pairs have the rest."""

        code_size: int = 128
        """Channels of the coded RGB image."""

        interpolate: bool = False
        """Whether the generator also learns from codes between two images' (GAN-INT)."""

        interpolate_weight: float = 1.0
        latent_size: int = 100
        width: int = 64
        condition_channels: int = 32
        """Channels by which the generator sees the RGB image at each scale; 0: its 3 colors."""

        lr_halving_images: int = 354_000
        """Images after which the learning rates halve: 40 epochs of Reed's 8,855 birds."""

        batch_size: int = 64

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.batch_size < 2:
            raise ValueError("cgan needs a batch_size of at least 2, to mismatch pairs, but got 1.")
        self.config = config
        self.generator = initialize(
            CodeGenerator(
                size=config.size,
                latent_size=config.latent_size,
                code_size=config.code_size,
                width=config.width,
                condition_channels=config.condition_channels,
            )
        )
        self.discriminator = initialize(
            LateDiscriminator(size=config.size, code_size=config.code_size, width=config.width)
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    draw_latent = normal_latent

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (self.config.beta1, 0.999)
        return {
            "discriminator": adam_player(
                self.discriminator, lr=config.discriminator_lr, betas=betas
            ),
            "generator": adam_player(self.generator, lr=config.generator_lr, betas=betas),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config, judge = self.config, self.discriminator
        batch = next(batches)
        rgb, thermal = batch.rgb, batch.thermal
        fake = self.translate(rgb)

        other, is_mismatch = mismatched(thermal)
        # Three passes, not one: batch normalization would mix the kinds.
        real = F.softplus(-judge(rgb, thermal)).mean()
        wrong = F.softplus(judge(rgb, other))
        painted = F.softplus(judge(rgb, fake.detach())).mean()
        wrong = (wrong * is_mismatch).sum() / is_mismatch.sum().clamp(min=1)
        share = config.mismatch_weight
        terms = {"real": real, "mismatched": share * wrong, "painted": (1 - share) * painted}
        yield Turn("discriminator", terms)

        terms = {"adversarial": F.softplus(-judge(rgb, fake)).mean()}
        if config.interpolate:
            terms["interpolated"] = config.interpolate_weight * self._fool_between(rgb)
        terms |= l1_terms(config, fake, thermal)
        yield Turn("generator", terms)

    def _fool_between(self, rgb: Rgb) -> Tensor:
        """The loss of what is painted from codes half-way between two images': there is no real
        partner, and none is needed."""
        fake = self.generator(rgb, self.latent_for(rgb, None), is_between=True)
        return F.softplus(-self.discriminator(rgb, fake, is_between=True)).mean()

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.halved(images, self.config.lr_halving_images)


def mismatched(thermal: Thermal) -> tuple[Thermal, Float[Tensor, "batch"]]:
    """Real thermal images of which none is in its own place, and 1 where it truly is another.

    Rolled by a random number of places; 0 marks pairs that show nearly the same (see ALIKE).
    """
    # Drawn on the device, which would have to be waited for otherwise.
    places = torch.randint(1, len(thermal), (), device=thermal.device)
    numbers = torch.arange(len(thermal), device=thermal.device)
    other = thermal[(numbers - places) % len(thermal)]
    difference = (other - thermal).abs().mean((1, 2, 3))
    return other, (difference > ALIKE).float()


def _between(seen: Tensor) -> Tensor:
    return (seen + seen.roll(1, 0)) / 2


def _normed(convolution: nn.Module, channels: int, activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), activation)


class ConditionCode(nn.Module):
    """The RGB image as a code of 4 x 4 places."""

    def __init__(self, *, size: int, code_size: int, width: int) -> None:
        super().__init__()
        channels = channels_by_resolution(size, width // 2, cap=16)
        self.layers = downsampling(3, channels)
        self.code = nn.Sequential(nn.Conv2d(channels[CODE], code_size, 1), nn.LeakyReLU(0.2))

    def forward(self, rgb: Rgb, *, is_between: bool = False) -> Float[Tensor, "batch code 4 4"]:
        """`is_between`: half-way to the code of the image before it in the batch."""
        code = self.code(self.layers(rgb))
        return _between(code) if is_between else code


class Bottleneck(nn.Module):
    """Adds what three convolutions see through a quarter of the channels."""

    def __init__(self, channels: int, activation: nn.Module) -> None:
        super().__init__()
        narrow = channels // 4
        self.layers = nn.Sequential(
            _normed(nn.Conv2d(channels, narrow, 1, bias=False), narrow, activation),
            _normed(nn.Conv2d(narrow, narrow, 3, 1, 1, bias=False), narrow, activation),
            nn.Conv2d(narrow, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        return self.activation(features + self.layers(features))


class CodeGenerator(nn.Module):
    """Noise and code, each through layers of its own, join at 4 x 4 and double to the image."""

    def __init__(
        self,
        *,
        size: int,
        latent_size: int = 100,
        code_size: int = 128,
        width: int = 64,
        condition_channels: int = 32,
    ) -> None:
        super().__init__()
        channels = channels_by_resolution(size, width, cap=8)
        root = channels[CODE]
        self.see = ConditionCode(size=size, code_size=code_size, width=width)
        self.condition = ConditionPyramid([r for r in channels if r > CODE], condition_channels)
        self.root = _normed(
            nn.ConvTranspose2d(latent_size, root, 4, 1, 0, bias=False), root, nn.ReLU()
        )
        self.join = nn.Sequential(
            _normed(nn.Conv2d(root + code_size, root, 1, bias=False), root, nn.ReLU()),
            Bottleneck(root, nn.ReLU()),
        )
        self.levels = nn.ModuleList()
        for resolution, wide in channels.items():
            seen = 0 if resolution == CODE else self.condition.channels
            if 2 * resolution == size:
                self.levels.append(
                    nn.Sequential(nn.ConvTranspose2d(wide + seen, 1, 4, 2, 1), nn.Tanh())
                )
                continue
            double = channels[2 * resolution]
            convolution = nn.ConvTranspose2d(wide + seen, double, 4, 2, 1, bias=False)
            level = _normed(convolution, double, nn.ReLU())
            if resolution == CODE:
                level.append(Bottleneck(double, nn.ReLU()))
            self.levels.append(level)

    def forward(self, rgb: Rgb, z: Latent, *, is_between: bool = False) -> Thermal:
        code = self.see(rgb, is_between=is_between)
        features = self.join(torch.cat([self.root(z[:, :, None, None]), code], dim=1))
        if is_between:
            rgb = _between(rgb)  # what the scales show is coded by one convolution only
        for level in self.levels:
            is_root = features.shape[-1] == CODE
            features = level(features if is_root else self.condition.concatenate(features, rgb))
        return features.float()


class LateDiscriminator(nn.Module):
    """Looks at the thermal image alone; only at 4 x 4 does the coded RGB image join it."""

    def __init__(self, *, size: int, code_size: int = 128, width: int = 64) -> None:
        super().__init__()
        channels = channels_by_resolution(size, width, cap=8)
        wide = channels[CODE]
        self.look = downsampling(1, channels)
        self.look.append(Bottleneck(wide, nn.LeakyReLU(0.2)))
        self.see = ConditionCode(size=size, code_size=code_size, width=width)
        self.join = nn.Sequential(
            _normed(nn.Conv2d(wide + code_size, wide, 1, bias=False), wide, nn.LeakyReLU(0.2)),
            nn.Conv2d(wide, 1, CODE, 1, 0),
        )

    def forward(
        self, rgb: Rgb, thermal: Thermal, *, is_between: bool = False
    ) -> Float[Tensor, "batch"]:
        code = self.see(rgb, is_between=is_between)
        joined = torch.cat([self.look(thermal), code], dim=1)
        return self.join(joined).flatten().float()
