"""ThermalGAN: Multimodal Color-to-Thermal Image Translation for Person Re-Identification.

Kniaz et al., ECCV Workshops 2018. https://link.springer.com/chapter/10.1007/978-3-030-11024-6_46
Zhu et al., Toward Multimodal Image-to-Image Translation (BicycleGAN), NeurIPS 2017.
https://arxiv.org/abs/1711.11586

In two stages: a base of few even temperatures, several of which are possible for one RGB image,
and the contrast of each place to its base. The authors' base comes from labeled object
temperatures; FLIR has none, so here it is read off the thermal image itself. Stage one is
BicycleGAN, stage two pix2pix. Needs aligned pairs.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torchvision.transforms.v2.functional import gaussian_blur

from thermal_search.architectures import translator
from thermal_search.architectures.translator import OptimizerConfig, Player, Translator, Turn
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import cross_entropy, least_squares, pixel_loss
from thermal_search.networks import MultiScale, PatchDiscriminator, UNet, initialize
from thermal_search.networks.patch import fitting_layers


@final
class ThermalGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.Config):
        generator_lr: float = 2e-4
        """Of both stages, and of the encoder."""

        discriminator_lr: float = 2e-4
        base: Literal["levels", "lowpass"] = "levels"
        """Whether the base is the mean of few grey levels, or the blurred image."""

        levels: int = 8
        """Even temperatures of a base image, at most."""

        contrast_range: float = 0.25
        """Largest difference to the base that stage two paints, of network range: the release's
        10 degrees of 40."""

        base_l1_weight: float = 10.0
        contrast_l1_weight: float = 100.0
        kl_weight: float = 0.01
        latent_weight: float = 0.5
        """Weight of finding the latent again in the base that was painted from it."""

        latent_size: int = 8
        predicted_base_share: float = 0.0
        """How often stage two learns on a painted base; 0: only on true ones, as in the release."""

        width: int = 64
        """Channels after the first convolution of every network."""

        dropout: float = 0.5
        """Of stage two."""

        patch_layers: int = 3
        """Strided layers of the discriminators; fewer where the image is too small for them."""

        decay_start: float = 0.5
        """Share of the budget after which the learning rates fall linearly to 0."""

        batch_size: int = 2

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.batch_size % 2:
            raise ValueError(
                "thermalgan needs an even batch_size, one half for each way of training its base, "
                f"but got {config.batch_size}."
            )
        self.config = config
        self.generator = TwoStageGenerator(config)
        self.sees_painted_base = False
        self.encoder = initialize(
            BaseEncoder(size=config.size, latent_size=config.latent_size, width=config.width)
        )
        self.encoded_discriminator = self._base_discriminator()
        self.random_discriminator = self._base_discriminator()
        self.contrast_discriminator = initialize(
            PatchDiscriminator(
                in_channels=1 + 3 + 1,
                width=config.width,
                layers=fitting_layers(config.patch_layers, config.size),
            )
        )

    def _base_discriminator(self) -> MultiScale:
        config = self.config

        def judge(size: int) -> PatchDiscriminator:
            layers = fitting_layers(config.patch_layers, size)
            return PatchDiscriminator(
                in_channels=1, width=config.width, layers=layers, norm="instance"
            )

        return initialize(MultiScale([judge(config.size), judge(config.size // 2)]))

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        return torch.randn(count, self.config.latent_size, generator=random, device=device)

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (0.5, 0.999)
        judges = OptimizerConfig(algorithm="adam", lr=config.discriminator_lr, betas=betas)
        painters = OptimizerConfig(algorithm="adam", lr=config.generator_lr, betas=betas)
        assert isinstance(self.generator, TwoStageGenerator)
        return {
            "base_discriminators": Player(
                (self.encoded_discriminator, self.random_discriminator), judges
            ),
            "base": Player((self.generator.base, self.encoder), painters),
            "contrast_discriminator": Player((self.contrast_discriminator,), judges),
            "contrast": Player((self.generator.contrast,), painters),
        }

    def begin_step(self, images: int, budget_images: int) -> bool:
        share = self.config.predicted_base_share
        self.sees_painted_base = bool(share) and torch.rand(()).item() < share
        return False

    def graph_key(self) -> bool:
        return self.sees_painted_base

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        base = self.base_of(batch.thermal)
        yield from self._generate_base(batch.rgb, base)
        yield from self._generate_contrast(batch, base)

    def base_of(self, thermal: Thermal) -> Thermal:
        """The base image that stage one is to paint."""
        if self.config.base == "lowpass":
            return _blurred(thermal, self.config.size / 32)
        return even_levels(thermal, self.config.levels)

    def _generate_base(self, rgb: Rgb, base: Thermal) -> Iterator[Turn]:
        """BicycleGAN: from the true base's code, and from a random one that must be found again."""
        config = self.config
        assert isinstance(self.generator, TwoStageGenerator)
        rgb, _ = rgb.chunk(2)
        true, other = base.chunk(2)
        mean, log_variance = self.encoder(true)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        random = self.latent_for(rgb, None)
        encoded = self.generator.base(rgb, code)
        drawn = self.generator.base(rgb, random)

        judged = _judge_scales(self.encoded_discriminator, true, encoded.detach())
        judged_random = _judge_scales(self.random_discriminator, other, drawn.detach())
        yield Turn("base_discriminators", {"encoded": judged, "random": judged_random})

        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
        yield Turn(
            "base",
            {
                "encoded": _fool_scales(self.encoded_discriminator, encoded),
                "random": _fool_scales(self.random_discriminator, drawn),
                "l1": pixel_loss(encoded, true, config.base_l1_weight),
                "kl": config.kl_weight * divergence.sum(1).mean(),
                "latent": config.latent_weight * F.l1_loss(self._found_again(drawn), random),
            },
        )

    def _found_again(self, base: Thermal) -> Latent:
        """The code of a painted base. The encoder only looks on: or it would learn to hide the
        latent instead of reading it."""
        frozen = {name: p.detach() for name, p in self.encoder.named_parameters()}
        mean, _ = torch.func.functional_call(self.encoder, frozen, (base,))
        return mean

    def _generate_contrast(self, batch: Batch, base: Thermal) -> Iterator[Turn]:
        """pix2pix: on the true base, or now and then on the painted one."""
        config = self.config
        assert isinstance(self.generator, TwoStageGenerator)
        if self.sees_painted_base:
            with torch.no_grad():
                base = self.generator.base(batch.rgb, self.latent_for(batch.rgb, None))
        difference = (batch.thermal - base) / config.contrast_range
        true = difference.clamp(-1, 1)
        seen = torch.cat([base, batch.rgb], dim=1)
        fake = self.generator.contrast(seen)

        real_score = self.contrast_discriminator(torch.cat([seen, true], dim=1))
        fake_score = self.contrast_discriminator(torch.cat([seen, fake.detach()], dim=1))
        clipped = (difference.abs() > 1).float().mean()
        yield Turn(
            "contrast_discriminator",
            {"adversarial": 0.5 * cross_entropy.discriminator(real_score, fake_score)},
            logged={"clipped_share": clipped},
        )

        fake_score = self.contrast_discriminator(torch.cat([seen, fake], dim=1))
        yield Turn(
            "contrast",
            {
                "adversarial": cross_entropy.generator(fake_score),
                "l1": pixel_loss(fake, true, config.contrast_l1_weight),
            },
        )

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)


def even_levels(thermal: Thermal, levels: int) -> Thermal:
    """Each place takes the mean of its grey level; levels are equally populated, `levels` at most.

    Levels are read off a blurred copy (sigma: size / 64), so that noise does not tear them.
    """
    with torch.autocast(thermal.device.type, enabled=False):
        smooth = _blurred(thermal, thermal.shape[-1] / 64).flatten(1)
        pixels = thermal.float().flatten(1)
        places = torch.arange(1, levels, device=thermal.device) * pixels.shape[1] // levels
        bounds = smooth.sort(dim=1).values[:, places].contiguous()
        level = torch.searchsorted(bounds, smooth, right=True)
        sums = pixels.new_zeros(len(pixels), levels).scatter_add_(1, level, pixels)
        counts = torch.zeros_like(sums).scatter_add_(1, level, torch.ones_like(pixels))
        means = sums / counts.clamp(min=1)
        return means.gather(1, level).view_as(thermal)


def _blurred(thermal: Thermal, sigma: float) -> Thermal:
    reach = max(1, min(math.ceil(3 * sigma), thermal.shape[-1] // 2 - 1))
    return gaussian_blur(thermal.float(), [2 * reach + 1] * 2, [sigma] * 2)


def _judge_scales(judge: MultiScale, real: Thermal, fake: Thermal) -> Tensor:
    pairs = zip(judge(real), judge(fake), strict=True)
    return torch.stack([0.5 * least_squares.discriminator(a, b) for a, b in pairs]).sum()


def _fool_scales(judge: MultiScale, fake: Thermal) -> Tensor:
    return torch.stack([least_squares.generator(score) for score in judge(fake)]).sum()


class TwoStageGenerator(nn.Module):
    """A base from RGB and latent; then the contrast to it, from base and RGB."""

    def __init__(self, config: ThermalGAN.Config) -> None:
        super().__init__()
        self.contrast_range = config.contrast_range
        self.base = initialize(
            UNet(size=config.size, width=config.width, dropout=0.0, latent_size=config.latent_size)
        )
        self.contrast = initialize(
            UNet(size=config.size, in_channels=1 + 3, width=config.width, dropout=config.dropout)
        )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        base = self.base(rgb, z)
        contrast = self.contrast(torch.cat([base, rgb], dim=1))
        return (base + self.contrast_range * contrast).clamp(-1, 1)


class BaseEncoder(nn.Module):
    """A base image to the mean and the logarithm of the variance of its code."""

    def __init__(self, *, size: int, latent_size: int = 8, width: int = 64) -> None:
        super().__init__()
        blocks = min(4, int(math.log2(size)) - 4)
        channels = [width * min(4, level) for level in range(1, blocks + 2)]
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            *(DownBlock(before, wide) for before, wide in itertools.pairwise(channels)),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.mean = nn.Linear(channels[-1], latent_size)
        self.log_variance = nn.Linear(channels[-1], latent_size)

    def forward(
        self, base: Thermal
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        features = self.layers(base)
        return self.mean(features).float(), self.log_variance(features).float()


class DownBlock(nn.Module):
    """Half the size: two convolutions and a mean over 2 x 2, beside the same of 1 x 1."""

    def __init__(self, before: int, wide: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.InstanceNorm2d(before),
            nn.LeakyReLU(0.2),
            nn.Conv2d(before, before, 3, 1, 1),
            nn.InstanceNorm2d(before),
            nn.LeakyReLU(0.2),
            nn.Conv2d(before, wide, 3, 1, 1),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(before, wide, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features) + self.shortcut(features)
