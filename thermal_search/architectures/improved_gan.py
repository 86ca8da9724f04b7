"""Improved GAN: Improved Techniques for Training GANs.

Salimans et al., NeurIPS 2016. https://arxiv.org/abs/1606.03498

DCGAN's generator with five remedies: it matches the discriminator's features, is normalized by a
fixed reference batch, and both players stay near their own past; the discriminator compares the
images of a batch with each other and is less than certain of real ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from thermal_search.architectures import translator
from thermal_search.architectures.translator import Player, Translator, Turn, adam_player, l1_terms
from thermal_search.images import Batch, Latent, Rgb, Thermal, to_network_range, to_pixels
from thermal_search.losses import smoothed_cross_entropy
from thermal_search.networks import DcganGenerator, initialize
from thermal_search.networks.fusion import LateFusion
from thermal_search.networks.virtual_batch_norm import VirtualBatchNorm

SMALLEST = 8
"""Height and width of the discriminator's last features."""


@final
class ImprovedGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.L1Config):
        generator_lr: float = 3e-4
        discriminator_lr: float = 3e-4
        beta1: float = 0.5
        """Adam's first decay rate, of both players; the second is 0.999."""

        real_label: float = 0.9
        """What the discriminator is to say of real pairs; of painted ones it is to say 0."""

        objective: Literal["both", "features", "adversarial"] = "both"
        """The generator's: to match the discriminator's features, to fool it, or both."""

        feature_weight: float = 1.0
        """Weight of feature matching beside the adversarial term, which has 1."""

        feature_norm: Literal["l1", "l2"] = "l1"
        """How mean features differ: absolutely, as the release has it, or squared, as the text."""

        compare: bool = True
        """Whether the discriminator sees how alike the images of its batch are (minibatch
        discrimination). It sees one worker's batch."""

        kernels: int = 100
        kernel_size: int = 5
        references: int = 32
        """Images of the reference batch that normalizes the generator."""

        history: bool = True
        """Whether both players are drawn to the mean of their past weights."""

        history_weight: float = 1e-3
        input_noise: float = 0.2
        """Standard deviation of the noise on what the discriminator sees."""

        dropout: float = 0.5
        latent_size: int = 100
        width: int = 64
        condition_channels: int = 32
        """Channels by which the generator sees the RGB image at each scale; 0: its 3 colors."""

        rgb_fusion: Literal["early", "late"] = "early"
        """Where the RGB image joins the thermal one in the discriminator: at its input, or at its
        smallest features, each image through layers of its own before."""

        decay_start: float = 2 / 3
        """Share of the budget after which the learning rates fall linearly to 0."""

        batch_size: int = 100

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = ReferencedGenerator(
            initialize(
                DcganGenerator(
                    size=config.size,
                    latent_size=config.latent_size,
                    width=config.width,
                    condition_channels=config.condition_channels,
                    norm="virtual",
                ),
                std=0.05,
            ),
            references=config.references,
            size=config.size,
            latent_size=config.latent_size,
        )
        self.discriminator = ComparingDiscriminator(
            size=config.size,
            width=config.width,
            kernels=config.kernels if config.compare else 0,
            kernel_size=config.kernel_size,
            input_noise=config.input_noise,
            dropout=config.dropout,
            late_fusion=config.rgb_fusion == "late",
        )
        self.discriminator_past = HistoricalAverage(self.discriminator) if config.history else None
        self.generator_past = HistoricalAverage(self.generator) if config.history else None

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        return torch.rand(count, self.config.latent_size, generator=random, device=device)

    def init_from_data(self, rgb: Rgb) -> None:
        assert isinstance(self.generator, ReferencedGenerator)
        self.generator.set_reference_batch(rgb)

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (self.config.beta1, 0.999)
        return {
            "discriminator": adam_player(
                self.discriminator, lr=config.discriminator_lr, betas=betas
            ),
            "generator": adam_player(self.generator, lr=config.generator_lr, betas=betas),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        batch = next(batches)
        fake = self.translate(batch.rgb)
        real_pair = torch.cat([batch.rgb, batch.thermal], dim=1)

        real_score, _ = self.discriminator(real_pair)
        fake_score, _ = self.discriminator(torch.cat([batch.rgb, fake.detach()], dim=1))
        loss = smoothed_cross_entropy(real_score, fake_score, config.real_label)
        terms = {"adversarial": loss}
        if self.discriminator_past:
            distance = self.discriminator_past.distance(self.discriminator)
            terms["history"] = config.history_weight * distance
        yield Turn("discriminator", terms)
        if self.discriminator_past:
            self.discriminator_past.append(self.discriminator)

        score, features = self.discriminator(torch.cat([batch.rgb, fake], dim=1))
        terms: dict[str, Tensor] = {}
        if config.objective != "features":
            terms["adversarial"] = F.softplus(-score).mean()
        if config.objective != "adversarial":
            with torch.no_grad():
                _, real_features = self.discriminator(real_pair)
            weight = config.feature_weight if config.objective == "both" else 1.0
            terms["features"] = weight * self._mismatch(real_features, features)
        if self.generator_past:
            distance = self.generator_past.distance(self.generator)
            terms["history"] = config.history_weight * distance
        terms |= l1_terms(config, fake, batch.thermal)
        yield Turn("generator", terms)
        if self.generator_past:
            self.generator_past.append(self.generator)

    def _mismatch(self, real: Tensor, fake: Tensor) -> Tensor:
        difference = real.float().mean(0) - fake.float().mean(0)
        if self.config.feature_norm == "l1":
            return difference.abs().mean()
        return difference.square().sum()

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)


class ReferencedGenerator(nn.Module):
    """A DCGAN generator that carries the reference batch of its virtual batch normalization.

    In training the reference batch passes through with every batch, for its activations change with
    the weights, and gradients flow through them. Judged, it passes through once.
    """

    def __init__(
        self, body: DcganGenerator, *, references: int, size: int, latent_size: int
    ) -> None:
        super().__init__()
        self.body = body
        last = body.levels[-1]
        assert isinstance(last, nn.Sequential)
        weight_norm(last[0], dim=1)  # by output channel
        self.norms = [m for m in body.modules() if isinstance(m, VirtualBatchNorm)]
        self.has_measured = False
        self.reference_rgb: Tensor
        self.reference_z: Tensor
        # As bytes, a quarter of the floats in every checkpoint and export.
        pixels = torch.zeros(references, 3, size, size, dtype=torch.uint8)
        self.register_buffer("reference_rgb", pixels)
        self.register_buffer("reference_z", torch.rand(references, latent_size))
        self.register_load_state_dict_post_hook(lambda *_: self._forget())

    def set_reference_batch(self, rgb: Rgb) -> None:
        """Takes its reference images from `rgb`, evenly spread."""
        wanted = len(self.reference_rgb)
        rows = torch.linspace(0, len(rgb) - 1, wanted).round().long().to(rgb.device)
        self.reference_rgb.copy_(to_pixels(rgb[rows]))
        self._forget()

    def train(self, mode: bool = True) -> "ReferencedGenerator":
        self._forget()
        return super().train(mode)

    def _forget(self) -> None:
        self.has_measured = False

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        references = 0
        if self.training or not self.has_measured:
            references = len(self.reference_rgb)
            rgb = torch.cat([to_network_range(self.reference_rgb), rgb])
            z = torch.cat([self.reference_z, z])
        for norm in self.norms:
            norm.references = references
        thermal = self.body(rgb, z)[references:]
        self.has_measured = not self.training
        return thermal


class ComparingDiscriminator(nn.Module):
    """Weight-normalized convolutions to one feature vector an image, compared within the batch.

    `late_fusion`: the thermal image alone is halved, the RGB one at half the width, and they join
    at 8 x 8.
    """

    def __init__(
        self,
        *,
        size: int,
        width: int = 64,
        kernels: int = 100,
        kernel_size: int = 5,
        input_noise: float = 0.2,
        dropout: float = 0.5,
        late_fusion: bool = False,
    ) -> None:
        super().__init__()
        self.input_noise = input_noise
        if late_fusion:
            look, wide = _downsampling(1, size, width, dropout)
            see, narrow = _downsampling(3, size, width // 2, dropout)
            # The paper's own convolutions of 1 x 1, one layer on, mix what both have seen.
            halved, joined = nn.Sequential(LateFusion(look, see)), wide + narrow
        else:
            halved, wide = _downsampling(4, size, width, dropout)
            joined = wide
        self.layers = nn.Sequential(
            *halved,
            *_seen(nn.Conv2d(joined, wide, 3)),
            *_seen(nn.Conv2d(wide, wide, 1)),
            *_seen(nn.Conv2d(wide, wide, 1)),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.compare = MinibatchDiscrimination(wide, kernels, kernel_size) if kernels else None
        self.head = initialize(nn.Linear(wide + kernels, 1), std=0.05)

    def forward(
        self, pair: Float[Tensor, "batch 4 height width"]
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch features"]]:
        """Logits, and the features they rest on before images are compared."""
        # On the RGB image too: by a clean one the discriminator could know the training pairs.
        if self.training and self.input_noise:
            pair = pair + self.input_noise * torch.randn_like(pair)
        features = self.layers(pair)
        seen = torch.cat([features, self.compare(features)], 1) if self.compare else features
        return self.head(seen).flatten().float(), features


def _downsampling(
    in_channels: int, size: int, width: int, dropout: float
) -> tuple[nn.Sequential, int]:
    """Convolutions from `size` to 8 x 8, doubling `width` up to 8 times; and their channels."""
    layers = nn.Sequential()
    before, wide = in_channels, width
    for level in range((size // SMALLEST).bit_length() - 1):
        wide = min(width * 2**level, 8 * width)
        layers.extend(
            [
                *_seen(nn.Conv2d(before, wide, 3, 1, 1)),
                *_seen(nn.Conv2d(wide, wide, 3, 2, 1)),
                nn.Dropout(dropout),
            ]
        )
        before = wide
    return layers, wide


def _seen(convolution: nn.Conv2d) -> tuple[nn.Module, nn.Module]:
    return weight_norm(initialize(convolution, std=0.05)), nn.LeakyReLU(0.2)


class MinibatchDiscrimination(nn.Module):
    """How near an image's features are to those of the others of its batch (section 3.2)."""

    def __init__(self, features: int, kernels: int, kernel_size: int) -> None:
        super().__init__()
        self.shape = kernels, kernel_size
        self.project = initialize(nn.Linear(features, kernels * kernel_size, bias=False), std=0.05)

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch kernels"]:
        """0 for an image unlike all others, batch - 1 for one that equals them all."""
        with torch.autocast(features.device.type, enabled=False):
            projected = self.project(features.float()).unflatten(1, self.shape)
            distance = (projected[:, None] - projected[None]).abs().sum(3)
            return torch.exp(-distance).sum(1) - 1  # without itself


class HistoricalAverage(nn.Module):
    """The mean of a network's past weights (historical averaging, section 3.3)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros(()))
        for number, parameter in enumerate(network.parameters()):
            self.register_buffer(f"mean_{number}", parameter.detach().clone())

    @property
    def means(self) -> list[Tensor]:
        """One a parameter, in the network's order."""
        return [mean for name, mean in self.named_buffers() if name.startswith("mean_")]

    def distance(self, network: nn.Module) -> Tensor:
        """The mean squared difference of its weights from those of its past."""
        weights: list[Tensor] = list(network.parameters())
        apart = torch._foreach_sub(weights, self.means)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] - one kernel for all weights
        total = torch.stack([difference.square().sum() for difference in apart]).sum()
        return total / sum(weight.numel() for weight in weights)

    @torch.no_grad()
    def append(self, network: nn.Module) -> None:
        """Counts the network's present weights among its past."""
        self.steps += 1
        means = self.means
        weights: list[Tensor] = list(network.parameters())
        moves = torch._foreach_sub(weights, means)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        torch._foreach_mul_(moves, 1 / (self.steps + 1))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        torch._foreach_add_(means, moves)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
