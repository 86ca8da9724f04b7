"""BigGAN: Large Scale GAN Training for High Fidelity Natural Image Synthesis.

Brock et al., ICLR 2019. https://arxiv.org/abs/1809.11096

Residual networks under spectral normalization with self-attention, trained on very large batches
with the hinge loss. The RGB image stands where the paper has a class: its embedding, with a share
of the latent, conditions every normalization of the generator, and there also place by place; the
discriminator projects it onto what it sees.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.architectures import translator
from thermal_search.architectures.translator import Player, Translator, Turn, adam_player, l1_terms
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import hinge
from thermal_search.networks import ConditionPyramid
from thermal_search.networks.attention import SelfAttention
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
"""Channels of each block's output, in multiples of the width, by the image's size."""

DISCRIMINATOR_MULTIPLES = {
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}

BLOCKS_OF_EQUAL_SIZE = {32: 2}
"""Last blocks of the discriminator that do not halve; one where the size is not named."""


@final
class BigGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.L1Config):
        generator_lr: float = 5e-5
        discriminator_lr: float = 2e-4
        beta1: float = 0.0
        """Adam's first decay rate, of both players; the second is 0.999."""

        n_discriminator: int = 2
        """Discriminator turns for one of the generator, each on fresh images."""

        width: int = 64
        """Channels at full size. The paper's is 96."""

        attention: int = 64
        """Resolution at which both networks attend to the whole image, at most half the size;
        0: nowhere."""

        latent_chunk: int = 20
        """Latent entries that each block of the generator has to itself."""

        embedding_size: int = 128
        orthogonal: bool = True
        """Whether the generator's filters are kept from being alike."""

        orthogonal_weight: float = 1e-4
        projection: Literal["spatial", "vector"] = "spatial"
        """Whether the RGB image is compared place by place, or only as a whole."""

        condition_channels: int = 32
        """Channels by which normalization sees the RGB image at each scale; 0: its 3 colors."""

        truncation: float = 0.0
        """Above 0: latent entries beyond it are drawn again when a trained network paints."""

        batch_size: int = 256
        """The paper's is 2048."""

        part_size: int = 16
        """Images passed through the networks at once; gradients gather over the batch. Batch
        normalization sees one part."""

        ema_half_life_images: int = 1_774_000
        """The paper's 0.9999 a step, at 256 images a step."""

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.size not in GENERATOR_MULTIPLES:
            sizes = ", ".join(map(str, GENERATOR_MULTIPLES))
            raise ValueError(f"biggan paints {sizes} pixels, but got size {config.size}.")
        self.config = config
        attention = min(config.attention, config.size // 2)
        self.generator = AdaptiveGenerator(
            size=config.size,
            width=config.width,
            attention=attention,
            latent_chunk=config.latent_chunk,
            embedding_size=config.embedding_size,
            condition_channels=config.condition_channels,
        )
        self.discriminator = ProjectionDiscriminator(
            size=config.size,
            width=config.width,
            attention=attention,
            is_spatial=config.projection == "spatial",
        )

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        chunks = len(GENERATOR_MULTIPLES[self.config.size]) + 1
        z = torch.empty(count, chunks * self.config.latent_chunk, device=device)
        limit = self.config.truncation
        if limit > 0 and not self.training:
            return nn.init.trunc_normal_(z, a=-limit, b=limit, generator=random)
        return z.normal_(generator=random)

    def players(self) -> Mapping[str, Player]:
        config, betas = self.config, (self.config.beta1, 0.999)
        return {
            "discriminator": adam_player(
                self.discriminator, lr=config.discriminator_lr, betas=betas
            ),
            "generator": adam_player(self.generator, lr=config.generator_lr, betas=betas),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        for _ in range(self.config.n_discriminator):
            for part, share, is_last in self._parts(next(batches)):
                with torch.no_grad():
                    fake = self.translate(part.rgb)
                loss = share * self._discriminator_loss(part, fake)
                yield Turn("discriminator", {"adversarial": loss}, steps_optimizer=is_last)

        for part, share, is_last in self._parts(next(batches)):
            fake = self.translate(part.rgb)
            terms = {"adversarial": hinge.generator(self.discriminator(part.rgb, fake))}
            terms |= l1_terms(self.config, fake, part.thermal)
            terms = {name: share * term for name, term in terms.items()}
            if self.config.orthogonal and is_last:
                assert isinstance(self.generator, AdaptiveGenerator)
                orthogonality_penalty = self.generator.orthogonality_penalty()
                terms["orthogonal"] = self.config.orthogonal_weight * orthogonality_penalty
            yield Turn("generator", terms, steps_optimizer=is_last)

    def _parts(self, batch: Batch) -> Iterator[tuple[Batch, float, bool]]:
        """Each part of a batch, its share of it, and whether it is the last."""
        rgb = batch.rgb.split(self.config.part_size)
        thermal = batch.thermal.split(self.config.part_size)
        for number, (x, y) in enumerate(zip(rgb, thermal, strict=True), 1):
            yield Batch(x, y), len(x) / len(batch.rgb), number == len(rgb)

    def _discriminator_loss(self, batch: Batch, fake: Thermal) -> Tensor:
        # One pass for both: nothing in the discriminator couples images.
        rgb = torch.cat([batch.rgb, batch.rgb])
        score = self.discriminator(rgb, torch.cat([batch.thermal, fake]))
        real_score, fake_score = score.chunk(2)
        return hinge.discriminator(real_score, fake_score)


class AdaptiveGenerator(SpectralNetwork):
    """Residual blocks that double the size; the RGB image enters through their norms alone.

    With `condition_channels` None it is the paper's network, and `embed` is left to the caller.
    """

    def __init__(
        self,
        *,
        size: int,
        out_channels: int = 1,
        width: int = 64,
        attention: int = 64,
        latent_chunk: int = 20,
        embedding_size: int = 128,
        condition_channels: int | None = 32,
    ) -> None:
        super().__init__()
        multiples = GENERATOR_MULTIPLES[size]
        channels = [width * multiple for multiple in (multiples[0], *multiples)]
        self.latent_chunk = latent_chunk
        code_size = embedding_size + latent_chunk
        self.root = nn.Linear(latent_chunk, channels[0] * BASE_RESOLUTION**2)
        self.blocks, self.attention = nn.ModuleList(), nn.ModuleDict()
        for number, (before, wide) in enumerate(itertools.pairwise(channels)):
            self.blocks.append(UpBlock(before, wide, code_size))
            if BASE_RESOLUTION * 2 ** (number + 1) == attention:
                self.attention[str(number)] = SelfAttention(wide)
        self.output = nn.Sequential(
            nn.BatchNorm2d(channels[-1]),
            nn.ReLU(),
            nn.Conv2d(channels[-1], out_channels, 3, 1, 1),
            nn.Tanh(),
        )
        self.normalize_weights()
        # Ours, so not under the norm: the maps begin at 0 and have no singular value to divide by.
        self.condition = self.embed = None
        if condition_channels is not None:
            self.condition = ConditionPyramid(
                [BASE_RESOLUTION * 2**level for level in range(len(channels))], condition_channels
            )
            for module in self.modules():
                if isinstance(module, AdaptiveNorm):
                    module.see(self.condition.channels)
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
        with parametrize.cached():
            self.measure_weights()
            embedding = self.embed(rgb)
            seen = [self._seen(rgb, level) for level in range(len(self.blocks) + 1)]
            root, *chunks = z.split(self.latent_chunk, dim=1)
            features = self.root(root).unflatten(1, (-1, BASE_RESOLUTION, BASE_RESOLUTION))
            for number, (block, chunk) in enumerate(zip(self.blocks, chunks, strict=True)):
                code = torch.cat([embedding, chunk], dim=1)
                features = block(features, code, seen[number], seen[number + 1])
                if str(number) in self.attention:
                    features = self.attention[str(number)](features)
            return self.output(features).float()

    def _seen(self, rgb: Rgb, level: int) -> Tensor | None:
        return self.condition.features(rgb, BASE_RESOLUTION * 2**level) if self.condition else None


class AdaptiveNorm(nn.Module):
    """Batch normalization whose gain and bias come from a code, and place by place from the RGB."""

    def __init__(self, channels: int, code_size: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Linear(code_size, channels, bias=False)
        self.bias = nn.Linear(code_size, channels, bias=False)
        self.maps: nn.Conv2d | None = None

    def see(self, condition_channels: int) -> None:
        channels = self.norm.num_features
        self.maps = nn.Conv2d(condition_channels, 2 * channels, 3, 1, 1, bias=False)
        nn.init.zeros_(self.maps.weight)

    def forward(self, features: Tensor, code: Tensor, seen: Tensor | None) -> Tensor:
        gain = 1 + self.gain(code)[:, :, None, None]
        bias = self.bias(code)[:, :, None, None]
        if self.maps is not None and seen is not None:
            gain_map, bias_map = self.maps(seen).chunk(2, dim=1)
            gain, bias = gain + gain_map, bias + bias_map
        return torch.addcmul(bias.to(features.dtype), self.norm(features), gain.to(features.dtype))


class UpBlock(nn.Module):
    """Twice the size, between two adaptive norms, beside a 1 x 1 convolution."""

    def __init__(self, before: int, wide: int, code_size: int) -> None:
        super().__init__()
        self.first_norm = AdaptiveNorm(before, code_size)
        self.first = nn.Conv2d(before, wide, 3, 1, 1)
        self.second_norm = AdaptiveNorm(wide, code_size)
        self.second = nn.Conv2d(wide, wide, 3, 1, 1)
        self.shortcut = nn.Conv2d(before, wide, 1)

    def forward(
        self, features: Tensor, code: Tensor, seen: Tensor | None, seen_double: Tensor | None
    ) -> Tensor:
        # 1 x 1 convolution and repetition commute; this way round it costs a quarter.
        shortcut = F.interpolate(self.shortcut(features), scale_factor=2)
        hidden = F.relu(self.first_norm(features, code, seen))
        hidden = self.first(F.interpolate(hidden, scale_factor=2))
        hidden = F.relu(self.second_norm(hidden, code, seen_double))
        return shortcut + self.second(hidden)


class ProjectionDiscriminator(SpectralNetwork):
    """Scores a thermal image by itself, and by how it agrees with what is seen in the RGB."""

    def __init__(
        self,
        *,
        size: int,
        in_channels: int = 1,
        width: int = 64,
        attention: int = 64,
        is_spatial: bool = True,
        is_conditional: bool = True,
    ) -> None:
        super().__init__()
        self.is_spatial = is_spatial
        self.look, wide = _downsampling(in_channels, size, width, attention)
        self.head = nn.Linear(wide, 1)
        self.see = None
        if is_conditional:
            tower, narrow = _downsampling(3, size, max(1, width // 4), attention)
            self.see = tower.append(nn.ReLU()).append(nn.Conv2d(narrow, wide, 1))
        self.normalize_weights()

    def forward(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        with parametrize.cached():
            self.measure_weights()
            features = F.relu(self.look(thermal))
            score = self.head(features.sum((2, 3))).flatten()
            if self.see is not None:
                score = score + self._agreement(features, self.see(rgb))
            return score.float()

    def _agreement(self, features: Tensor, seen: Tensor) -> Tensor:
        if self.is_spatial:
            return (features * seen).sum(1).mean((1, 2))
        return (features.sum((2, 3)) * seen.mean((2, 3))).sum(1)


class DownBlock(nn.Module):
    """Two convolutions beside one of 1 x 1, to half the size where it halves."""

    def __init__(self, before: int, wide: int, *, is_first: bool, halves: bool) -> None:
        super().__init__()
        self.is_first, self.halves = is_first, halves
        self.first = nn.Conv2d(before, wide, 3, 1, 1)
        self.second = nn.Conv2d(wide, wide, 3, 1, 1)
        is_plain = before == wide and not halves
        self.shortcut = nn.Identity() if is_plain else nn.Conv2d(before, wide, 1)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.second(F.relu(self.first(features if self.is_first else F.relu(features))))
        if self.halves:
            # The mean first: it commutes with a 1 x 1 convolution, which then costs a quarter.
            return F.avg_pool2d(hidden, 2) + self.shortcut(F.avg_pool2d(features, 2))
        return hidden + self.shortcut(features)


def _downsampling(before: int, size: int, width: int, attention: int) -> tuple[nn.Sequential, int]:
    """The discriminator's blocks for an image of `size`, and the channels they end with."""
    multiples = DISCRIMINATOR_MULTIPLES[size]
    halving = len(multiples) - BLOCKS_OF_EQUAL_SIZE.get(size, 1)
    layers = nn.Sequential()
    for number, multiple in enumerate(multiples):
        wide, halves = width * multiple, number < halving
        layers.append(DownBlock(before, wide, is_first=number == 0, halves=halves))
        if halves and size // 2 ** (number + 1) == attention:
            layers.append(SelfAttention(wide))
        before = wide
    return layers, before
