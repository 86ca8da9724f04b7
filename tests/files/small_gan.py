"""A small conditional GAN outside the package: what --architecture-file takes.

One file holds the architecture and its search space. The contract tests run on it by

    pytest tests/test_architectures.py --architecture-file tests/files/small_gan.py
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from torch import Tensor, nn

from thermal_search.architectures.translator import Config as CommonConfig
from thermal_search.architectures.translator import Translator, Turn, adam_players
from thermal_search.images import Batch, Latent, Rgb, Thermal

SPACE = {
    "generator_lr": FloatDistribution(1e-5, 1e-2, log=True),
    "discriminator_lr": FloatDistribution(1e-5, 1e-2, log=True),
    "width": IntDistribution(4, 64, log=True),
    "l1": CategoricalDistribution([False, True]),
    "l1_weight": FloatDistribution(1.0, 100.0, log=True),
    "batch_size": CategoricalDistribution([1, 4, 16]),
}
CONDITIONS = {"l1_weight": ("l1", (True,))}
IN_FLIGHT = ("generator_lr", "discriminator_lr", "l1_weight")
PUBLISHED = {
    "generator_lr": 2e-4,
    "discriminator_lr": 2e-4,
    "width": 16,
    "l1": False,
    "batch_size": 4,
}
TINY = {"width": 4}
"""For the contract tests: fields of the Config that make it small."""


@final
class SmallGAN(Translator):
    """Three convolutions against three convolutions, with the least-squares loss."""

    needs_pairs = True
    players = adam_players

    @dataclass(frozen=True, kw_only=True)
    class Config(CommonConfig):
        batch_size: int = 4
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        width: int = 16
        l1: bool = False
        l1_weight: float = 10.0

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = nn.Sequential(*_layers(3, config.width), nn.Tanh())
        self.discriminator = nn.Sequential(*_layers(4, config.width))

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb)

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        batch = next(batches)
        fake = self.generator(batch.rgb)
        real_score = self._score(batch.rgb, batch.thermal)
        fake_score = self._score(batch.rgb, fake.detach())
        loss = (real_score - 1).square().mean() + fake_score.square().mean()
        yield Turn("discriminator", {"adversarial": loss})

        terms = {"adversarial": (self._score(batch.rgb, fake) - 1).square().mean()}
        if self.config.l1:
            terms["l1"] = self.config.l1_weight * (fake - batch.thermal).abs().mean()
        yield Turn("generator", terms)

    def _score(self, rgb: Tensor, thermal: Tensor) -> Tensor:
        return self.discriminator(torch.cat([rgb, thermal], dim=1))


def _layers(channels: int, width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 1, 3, padding=1),
    ]
