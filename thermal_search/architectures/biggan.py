"""BigGAN: Large Scale GAN Training for High Fidelity Natural Image Synthesis.

Brock et al., ICLR 2019. https://arxiv.org/abs/1809.11096

Residual networks with spectral normalization and self-attention, trained on very large batches with
the hinge loss. The RGB image replaces the paper's class: its embedding, with a chunk of the latent,
conditions every normalization of the generator, and its pyramid does so per position. The
discriminator projects its features onto those of the RGB image.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.architectures import translator
from thermal_search.architectures.additions import DecoderConfig, scored_images, similarity_terms
from thermal_search.architectures.translator import Translator, Turn, adam_players
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import hinge
from thermal_search.networks import ConditionPyramid
from thermal_search.networks.attention import SelfAttention
from thermal_search.networks.condition import RgbEncoder
from thermal_search.networks.spectral_norm import SpectralNetwork

BASE_RESOLUTION = 4
"""Height and width of the smallest features."""

GENERATOR_MULTIPLES = {
    32: (4, 4, 4),
    64: (16, 8, 4, 2),
    128: (16, 8, 4, 2, 1),
    256: (16, 8, 8, 4, 2, 1),
    512: (16, 8, 8, 4, 2, 1, 1),
}
"""Output channels of each block, in multiples of the width, by image size."""

DISCRIMINATOR_MULTIPLES = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}

BLOCKS_WITHOUT_DOWNSAMPLING = {32: 2}
"""Number of final discriminator blocks that keep the resolution, by image size; otherwise 1."""


@final
class BigGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
        generator_lr: float = 5e-5
        discriminator_lr: float = 2e-4
        beta1: float = 0.0
        """Adam's beta1, of both players; beta2 is 0.999."""

        n_discriminator: int = 2
        """Discriminator turns per generator turn, each on a new batch."""

        width: int = 64
        """Channels at full size. The paper has 96."""

        attention_resolution: int = 64
        """Resolution of the self-attention in both networks, capped at half the size; 0: none."""

        latent_chunk_size: int = 20
        """Latent entries per generator block, and for its first layer."""

        embedding_size: int = 128
        orthogonal_regularization: bool = True
        """Whether the generator minimizes the dot products between the filters of a layer. The
        weight multiplies the gradient of the authors' code."""

        orthogonal_regularization_weight: float = 1e-4
        projection: Literal["spatial", "vector"] = "spatial"
        """Whether the discriminator projects onto RGB features per position, or onto their mean."""

        condition_channels: int = 32
        """Channels of the RGB condition at each resolution of the generator; 0: the 3 of RGB."""

        truncation: float = 0.0
        """Truncation trick: in evaluation, latent entries beyond it are resampled; 0: off."""

        decay_start: float = 1.0
        """Fraction of the budget after which the learning rates fall linearly to 0; 1: never, as in
        the paper."""

        batch_size: int = 256
        """The paper has 2048."""

        microbatch_size: int = 16
        """Images per forward pass, at most `batch_size`; gradients accumulate over the batch. Batch
        normalization is computed per microbatch, so that the results depend on it."""

        ema_half_life_images: int = 1_774_000
        """The paper's decay of 0.9999 per step, at 256 images per step."""

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.size not in GENERATOR_MULTIPLES:
            sizes = ", ".join(map(str, GENERATOR_MULTIPLES))
            raise ValueError(f"biggan needs a size of {sizes} pixels, but got {config.size}.")
        self.config = config
        attention_resolution = min(config.attention_resolution, config.size // 2)
        self.generator = BigGANGenerator(
            size=config.size,
            width=config.width,
            attention_resolution=attention_resolution,
            latent_chunk_size=config.latent_chunk_size,
            embedding_size=config.embedding_size,
            condition_channels=config.condition_channels,
            rgb_encoder=config.rgb_encoder,
        )
        self.discriminator = ProjectionDiscriminator(
            size=config.size,
            width=config.width,
            attention_resolution=attention_resolution,
            is_spatial=config.projection == "spatial",
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        chunks = len(GENERATOR_MULTIPLES[self.config.size]) + 1
        z = torch.empty(count, chunks * self.config.latent_chunk_size, device=device)
        limit = self.config.truncation
        if limit > 0 and not self.training:
            return nn.init.trunc_normal_(z, a=-limit, b=limit, generator=random)
        return z.normal_(generator=random)

    players = adam_players

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        for _ in range(self.config.n_discriminator):
            for microbatch, fraction, is_last in self._microbatches(next(batches)):
                with torch.no_grad():
                    fake = self.translate(microbatch.rgb)
                loss = fraction * self._discriminator_loss(microbatch, fake)
                yield Turn("discriminator", {"adversarial": loss}, steps_optimizer=is_last)

        for microbatch, fraction, is_last in self._microbatches(next(batches)):
            fake = self.translate(microbatch.rgb)
            fake_score = self._score(microbatch.rgb, fake)
            terms = {"adversarial": hinge.generator(fake_score)}
            terms |= similarity_terms(self.config, fake, microbatch.thermal)
            terms = {name: fraction * term for name, term in terms.items()}
            if self.config.orthogonal_regularization and is_last:
                assert isinstance(self.generator, BigGANGenerator)
                penalty = self.generator.orthogonality_penalty()
                weight = self.config.orthogonal_regularization_weight
                terms["orthogonal_regularization"] = weight * penalty
            yield Turn("generator", terms, steps_optimizer=is_last)

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)

    def _microbatches(self, batch: Batch) -> Iterator[tuple[Batch, float, bool]]:
        """Each microbatch, its fraction of the batch, and whether it is the last."""
        rgb = batch.rgb.split(self.config.microbatch_size)
        thermal = batch.thermal.split(self.config.microbatch_size)
        for number, (x, y) in enumerate(zip(rgb, thermal, strict=True), 1):
            yield Batch(x, y), len(x) / len(batch.rgb), number == len(rgb)

    def _discriminator_loss(self, batch: Batch, fake: Thermal) -> Tensor:
        # One pass for both, because the discriminator does not couple images.
        rgb = torch.cat([batch.rgb, batch.rgb])
        real_score, fake_score = self._score(rgb, torch.cat([batch.thermal, fake])).chunk(2)
        return hinge.discriminator(real_score, fake_score)

    def _score(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.discriminator(*scored_images(self.config, rgb, thermal))


class BigGANGenerator(SpectralNetwork):
    """Residual blocks that double the resolution; the RGB image conditions their normalization.

    With `condition_channels` None it has the layers of the paper's network except the class
    embedding, and cannot run.
    """

    def __init__(
        self,
        *,
        size: int,
        out_channels: int = 1,
        width: int = 64,
        attention_resolution: int = 64,
        latent_chunk_size: int = 20,
        embedding_size: int = 128,
        condition_channels: int | None = 32,
        rgb_encoder: RgbEncoder = "pooled",
    ) -> None:
        super().__init__()
        multiples = GENERATOR_MULTIPLES[size]
        channels = [width * multiple for multiple in (multiples[0], *multiples)]
        self.latent_chunk_size = latent_chunk_size
        code_size = embedding_size + latent_chunk_size
        self.root = nn.Linear(latent_chunk_size, channels[0] * BASE_RESOLUTION**2)
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleDict()
        for number, (block_in, block_out) in enumerate(itertools.pairwise(channels)):
            self.blocks.append(UpBlock(block_in, block_out, code_size))
            if BASE_RESOLUTION * 2 ** (number + 1) == attention_resolution:
                self.attention[str(number)] = SelfAttention(block_out)
        self.output = nn.Sequential(
            nn.BatchNorm2d(channels[-1]),
            nn.ReLU(),
            nn.Conv2d(channels[-1], out_channels, 3, 1, 1),
            nn.Tanh(),
        )
        self.apply_spectral_norm()
        # Not part of the paper and without spectral norm, which is undefined for weights of zeros.
        self.condition = self.embed = None
        if condition_channels is not None:
            self.condition = ConditionPyramid(
                [BASE_RESOLUTION * 2**level for level in range(len(channels))],
                condition_channels,
                encoder=rgb_encoder,
                size=size,
            )
            for module in self.modules():
                if isinstance(module, ConditionalBatchNorm):
                    module.add_spatial(self.condition.channels)
            self.embed = nn.Sequential(
                nn.Conv2d(3, 32, 4, 4),
                nn.ReLU(),
                nn.Conv2d(32, 64, 4, 2, 1),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(64, embedding_size),
            )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        assert self.embed is not None
        assert self.condition is not None
        with parametrize.cached():
            self.cache_weights()
            embedding = self.embed(rgb)
            condition = self.condition.encode(rgb)
            conditions = [
                condition(BASE_RESOLUTION * 2**level) for level in range(len(self.blocks) + 1)
            ]
            root, *chunks = z.split(self.latent_chunk_size, dim=1)
            features = self.root(root).unflatten(1, (-1, BASE_RESOLUTION, BASE_RESOLUTION))
            for number, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
                code = torch.cat([embedding, chunk], dim=1)
                features = block(features, code, conditions[number], conditions[number + 1])
                if str(number) in self.attention:
                    features = self.attention[str(number)](features)
            return self.output(features).float()


class ConditionalBatchNorm(nn.Module):
    """Batch normalization whose gain and bias depend on a code and, per position, on a condition.

    The code is the RGB embedding and a chunk of the latent. The condition is the RGB pyramid's.
    """

    def __init__(self, channels: int, code_size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Linear(code_size, channels, bias=False)
        self.bias = nn.Linear(code_size, channels, bias=False)
        self.spatial: nn.Conv2d | None = None

    def add_spatial(self, condition_channels: int) -> None:
        """Adds the convolution from the condition to gain and bias maps, which starts at 0."""
        channels = self.norm.num_features
        self.spatial = nn.Conv2d(condition_channels, 2 * channels, 3, 1, 1, bias=False)
        nn.init.zeros_(self.spatial.weight)

    def forward(self, features: Tensor, code: Tensor, condition: Tensor | None) -> Tensor:
        gain = 1 + self.gain(code)[:, :, None, None]
        bias = self.bias(code)[:, :, None, None]
        if self.spatial is not None and condition is not None:
            gain_map, bias_map = self.spatial(condition).chunk(2, dim=1)
            gain, bias = gain + gain_map, bias + bias_map
        return torch.addcmul(bias.to(features.dtype), self.norm(features), gain.to(features.dtype))


class UpBlock(nn.Module):
    """Doubles the resolution: a residual block with conditional batch normalization."""

    def __init__(self, in_channels: int, out_channels: int, code_size: int) -> None:
        super().__init__()
        self.norm_1 = ConditionalBatchNorm(in_channels, code_size)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.norm_2 = ConditionalBatchNorm(out_channels, code_size)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(
        self, features: Tensor, code: Tensor, condition: Tensor, upsampled_condition: Tensor
    ) -> Tensor:
        """`condition` at the input's resolution, `upsampled_condition` at the output's."""
        # Convolved before upsampling, which is equivalent for 1 x 1 and costs a quarter.
        shortcut = F.interpolate(self.shortcut(features), scale_factor=2)
        hidden = F.relu(self.norm_1(features, code, condition))
        hidden = self.conv_1(F.interpolate(hidden, scale_factor=2))
        hidden = F.relu(self.norm_2(hidden, code, upsampled_condition))
        return shortcut + self.conv_2(hidden)


class ProjectionDiscriminator(SpectralNetwork):
    """The score of the thermal image plus the projection of its features onto the RGB image's."""

    def __init__(
        self,
        *,
        size: int,
        in_channels: int = 1,
        width: int = 64,
        attention_resolution: int = 64,
        is_spatial: bool = True,
        is_conditional: bool = True,
    ) -> None:
        super().__init__()
        self.is_spatial = is_spatial
        self.thermal_branch, channels = _downsampling(
            in_channels, size, width, attention_resolution
        )
        self.head = nn.Linear(channels, 1)
        self.rgb_branch = None
        if is_conditional:
            rgb_branch, rgb_channels = _downsampling(
                3, size, max(1, width // 4), attention_resolution
            )
            rgb_branch.append(nn.ReLU()).append(nn.Conv2d(rgb_channels, channels, 1))
            self.rgb_branch = rgb_branch
        self.apply_spectral_norm()

    def forward(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        with parametrize.cached():
            self.cache_weights()
            features = F.relu(self.thermal_branch(thermal))
            score = self.head(features.sum((2, 3))).flatten()
            if self.rgb_branch is not None:
                score = score + self._projection(features, self.rgb_branch(rgb))
            return score.float()

    def _projection(self, features: Tensor, rgb_features: Tensor) -> Tensor:
        # Summed over the positions, as the features are for the head: averaged, the projection
        # would be too weak beside the head's score to tell one RGB image from another.
        if self.is_spatial:
            return (features * rgb_features).sum((1, 2, 3))
        return (features.sum((2, 3)) * rgb_features.mean((2, 3))).sum(1)


class DownBlock(nn.Module):
    """A residual block of two convolutions; halves the resolution if `downsamples`."""

    def __init__(
        self, in_channels: int, out_channels: int, *, is_first: bool, downsamples: bool
    ) -> None:
        super().__init__()
        self.is_first, self.downsamples = is_first, downsamples
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, 1, 1)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1)
        is_identity = in_channels == out_channels and not downsamples
        self.shortcut = nn.Identity() if is_identity else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.conv_2(F.relu(self.conv_1(features if self.is_first else F.relu(features))))
        if self.downsamples:
            # Convolved after pooling, which is equivalent for 1 x 1 and costs a quarter.
            return F.avg_pool2d(hidden, 2) + self.shortcut(F.avg_pool2d(features, 2))
        return hidden + self.shortcut(features)


def _downsampling(
    in_channels: int, size: int, width: int, attention_resolution: int
) -> tuple[nn.Sequential, int]:
    """The discriminator's blocks for an image of `size`, and their output channels."""
    multiples = DISCRIMINATOR_MULTIPLES[size]
    downsampling_blocks = len(multiples) - BLOCKS_WITHOUT_DOWNSAMPLING.get(size, 1)
    layers = nn.Sequential()
    for number, multiple in enumerate(multiples):
        out_channels, downsamples = width * multiple, number < downsampling_blocks
        layers.append(
            DownBlock(in_channels, out_channels, is_first=number == 0, downsamples=downsamples)
        )
        if downsamples and size // 2 ** (number + 1) == attention_resolution:
            layers.append(SelfAttention(out_channels))
        in_channels = out_channels
    return layers, in_channels
