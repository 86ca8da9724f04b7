"""GAN: Generative Adversarial Nets.

Goodfellow et al., NeurIPS 2014. https://arxiv.org/abs/1406.2661

The original GAN: a generator of ReLU and sigmoid units, a maxout discriminator with dropout, and no
normalization. The discriminator gets the thermal image alone, so only the generator's inputs
condition its output on the RGB image. Sizes follow the authors' CIFAR-10 networks.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.architectures.additions import (
    DecoderConfig,
    DiscriminatorConfig,
    augmented,
    r1_terms,
    similarity_terms,
)
from thermal_search.architectures.translator import (
    OptimizerConfig,
    Player,
    Translator,
    Turn,
    adam_player,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import ADVERSARIAL_LOSSES
from thermal_search.networks import ConditionPyramid
from thermal_search.networks.condition import RgbEncoder
from thermal_search.networks.deep_convolutional import dcgan_channels
from thermal_search.networks.spectral_norm import SpectralNetwork, apply_spectral_norm

THUMBNAIL_SIZE = 8
"""Height and width of the RGB image at the generator's dense layers."""

DENSE_UNITS, DENSE_PIECES = 500, 5
DECAY_PER_UPDATE = 1.000004
MIN_LR = 1e-6


@final
class GAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig, DiscriminatorConfig):
        generator_loss: Literal["nonsaturating", "minimax"] = "nonsaturating"
        """The generator maximizes log D, or minimizes log(1 - D) as in the paper's minimax game."""

        optimizer: Literal["sgd", "adam"] = "sgd"
        generator_lr: float = 0.004
        discriminator_lr: float = 0.004
        """Both for SGD."""

        generator_adam_lr: float = 2e-4
        discriminator_adam_lr: float = 2e-4
        """Both for Adam."""

        final_momentum: float = 0.7
        """SGD's momentum at the end of the budget; it starts at 0.5."""

        latent_size: int = 100
        latent_prior: Literal["normal", "uniform"] = "normal"
        """Both have unit variance."""

        input_dropout: float = 0.2
        hidden_dropout: float = 0.5
        maxout_pieces: int = 2
        """Linear pieces of each convolutional maxout unit."""

        generator_width: int = 64
        discriminator_width: int = 32
        condition_channels: int = 32
        """Channels of the RGB condition at each resolution of the generator; 0: the 3 of RGB."""

        batch_size: int = 128

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = _initialize(
            SigmoidGenerator(
                size=config.size,
                latent_size=config.latent_size,
                width=config.generator_width,
                condition_channels=config.condition_channels,
                rgb_encoder=config.rgb_encoder,
            )
        )
        self.discriminator = _initialize(
            MaxoutDiscriminator(
                size=config.size,
                width=config.discriminator_width,
                pieces=config.maxout_pieces,
                input_dropout=config.input_dropout,
                hidden_dropout=config.hidden_dropout,
            )
        )
        if config.spectral_norm:
            apply_spectral_norm(self.discriminator)

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        if self.config.latent_prior == "normal":
            return normal_latent(self, count, random, device)
        z = torch.rand(count, self.config.latent_size, generator=random, device=device)
        return (z * 2 - 1) * math.sqrt(3)

    def players(self) -> Mapping[str, Player]:
        config = self.config

        def player(network: nn.Module, sgd_lr: float, adam_lr: float) -> Player:
            if config.optimizer == "adam":
                return adam_player(network, lr=adam_lr, betas=(0.5, 0.999))
            momentum = 0.5, config.final_momentum
            return Player(
                (network,), OptimizerConfig(algorithm="sgd", lr=sgd_lr, momentum=momentum)
            )

        return {
            "discriminator": player(
                self.discriminator, config.discriminator_lr, config.discriminator_adam_lr
            ),
            "generator": player(self.generator, config.generator_lr, config.generator_adam_lr),
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        name = "vanilla" if self.config.generator_loss == "nonsaturating" else "minimax"
        adversarial_loss = ADVERSARIAL_LOSSES[name]
        batch = next(batches)
        fake = self.translate(batch.rgb)

        real_score, fake_score = self._score(
            torch.cat([batch.thermal, fake.detach()])  # one pass: it does not couple images
        ).chunk(2)
        loss = adversarial_loss.discriminator(real_score, fake_score)
        terms = {"adversarial": loss} | r1_terms(self.config, batch.thermal, self.discriminator)
        yield Turn("discriminator", terms)

        terms = {"adversarial": adversarial_loss.generator(self._score(fake))}
        terms |= similarity_terms(self.config, fake, batch.thermal)
        yield Turn("generator", terms)

    def _score(self, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.discriminator(augmented(self.config, thermal))

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        if self.config.optimizer == "adam":
            return 1.0
        updates = images / (self.config.batch_size * self.workers)
        return max(DECAY_PER_UPDATE**-updates, MIN_LR / self.config.generator_lr)


class SigmoidGenerator(nn.Module):
    """Dense ReLU and sigmoid layers, then transposed convolutions up to the image."""

    def __init__(
        self,
        *,
        size: int,
        latent_size: int = 100,
        width: int = 64,
        condition_channels: int = 32,
        rgb_encoder: RgbEncoder = "pooled",
    ) -> None:
        super().__init__()
        channels = {
            r: c
            for r, c in dcgan_channels(size, width, max_multiplier=8).items()
            if r >= THUMBNAIL_SIZE
        }
        self.condition = ConditionPyramid(
            list(channels), condition_channels, encoder=rgb_encoder, size=size
        )
        extra = self.condition.channels
        self.dense_channels = 8 * width
        self.dense = nn.Sequential(
            nn.Linear(latent_size + 3 * THUMBNAIL_SIZE**2, 16 * width),
            nn.ReLU(),
            nn.Linear(16 * width, self.dense_channels * THUMBNAIL_SIZE**2),
            nn.Sigmoid(),
        )
        is_equal = channels[THUMBNAIL_SIZE] == self.dense_channels
        self.project = (
            nn.Identity()
            if is_equal
            else nn.Conv2d(self.dense_channels, channels[THUMBNAIL_SIZE], 1)
        )
        self.levels = nn.ModuleList()
        for resolution, in_channels in channels.items():
            is_last = 2 * resolution == size
            out_channels = 1 if is_last else channels[2 * resolution]
            self.levels.append(
                nn.Sequential(
                    nn.ConvTranspose2d(in_channels + extra, out_channels, 6, 2, 2),
                    nn.Tanh() if is_last else nn.ReLU(),
                )
            )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        thumbnail = F.adaptive_avg_pool2d(rgb, THUMBNAIL_SIZE).flatten(1)
        dense = self.dense(torch.cat([z, thumbnail], dim=1))
        features = self.project(
            dense.unflatten(1, (self.dense_channels, THUMBNAIL_SIZE, THUMBNAIL_SIZE))
        )
        condition = self.condition.encode(rgb)
        for level in self.levels:
            features = level(self.condition.concatenate(features, condition))
        return features.float()


class MaxoutDiscriminator(SpectralNetwork):
    """Maxout convolutions with dropout down to 8 x 8, a dense maxout layer, one logit.

    Has spectral normalization after a call of `apply_spectral_norm`.
    """

    def __init__(
        self,
        *,
        size: int,
        width: int = 32,
        pieces: int = 2,
        input_dropout: float = 0.2,
        hidden_dropout: float = 0.5,
    ) -> None:
        super().__init__()
        multiples = (1, 1, 2, 4, 6)
        layers: list[nn.Module] = [nn.Dropout(input_dropout)]
        in_channels, resolution = 1, size
        for stage in range((size // THUMBNAIL_SIZE).bit_length() - 1):
            out_channels = width * multiples[min(stage, len(multiples) - 1)]
            kernel = 7 if stage < 2 else 5
            layers += [
                nn.Dropout(hidden_dropout) if stage else nn.Identity(),
                nn.Conv2d(in_channels, out_channels * pieces, kernel, 1, kernel // 2),
                Maxout(pieces),
                nn.MaxPool2d(4, 2, 1) if stage < 2 else nn.MaxPool2d(2, 2),
            ]
            in_channels, resolution = out_channels, resolution // 2
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            nn.Dropout(hidden_dropout),
            nn.Linear(in_channels * resolution**2, DENSE_UNITS * DENSE_PIECES),
            Maxout(DENSE_PIECES),
            nn.Dropout(hidden_dropout),
            nn.Linear(DENSE_UNITS, 1),
        )

    def forward(self, thermal: Thermal) -> Float[Tensor, "batch"]:
        with parametrize.cached():
            self.cache_weights()
            return self.layers(thermal).flatten()


class Maxout(nn.Module):
    """Each unit is the largest of its linear pieces (Goodfellow et al. 2013, arXiv 1302.4389)."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, features: Tensor) -> Tensor:
        return features.unflatten(1, (-1, self.pieces)).amax(2)


def _initialize(network: nn.Module) -> nn.Module:
    """Draws uniform weights that preserve the signal's scale.

    The paper's +-0.005 would lose the signal over five stages. A pooled maxout unit about doubles
    the scale of its pieces, so its gain is 0.5. A transposed convolution of stride 2 covers each
    output position with a quarter of its kernel.
    """
    gain = 0.5 if isinstance(network, MaxoutDiscriminator) else math.sqrt(2)
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
            inputs = module.weight[0].numel()
            if isinstance(module, nn.ConvTranspose2d):
                inputs = module.weight[:, 0].numel() / 4
            bound = gain * math.sqrt(3 / inputs)
            nn.init.uniform_(module.weight, -bound, bound)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return network
