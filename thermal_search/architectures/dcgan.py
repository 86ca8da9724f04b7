"""DCGAN: Unsupervised Representation Learning with Deep Convolutional GANs.

Radford et al., ICLR 2016. https://arxiv.org/abs/1511.06434

Strided and transposed convolutions with batch normalization, without dense or pooling layers. The
generator decodes a latent vector, with the RGB image as a condition at every resolution; the
discriminator scores the (rgb, thermal) pair.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from thermal_search.architectures import translator
from thermal_search.architectures.additions import (
    DecoderConfig,
    DiscriminatorConfig,
    r1_terms,
    scored_images,
    similarity_terms,
)
from thermal_search.architectures.translator import (
    Translator,
    Turn,
    adam_players,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import smoothed_cross_entropy
from thermal_search.networks import DcganDiscriminator, DcganGenerator, initialize


@final
class DCGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig, DiscriminatorConfig):
        generator_lr: float = 2e-4
        discriminator_lr: float = 2e-4
        beta1: float = 0.5
        """Adam's beta1, of both players; beta2 is 0.999."""

        real_label: float = 1.0
        """The discriminator's target for real pairs; below 1: one-sided label smoothing."""

        latent_size: int = 100
        latent_prior: Literal["uniform", "normal"] = "uniform"
        """Uniform in -1 .. 1 as in the paper, or N(0, 1) as in most ports."""

        width: int = 64
        """Channels at half the image size, of both networks. The paper has 128, at 64 pixels."""

        max_width_multiplier: int = 16
        """The deepest layers have at most this many times `width` channels."""

        condition_channels: int = 32
        """Channels of the RGB condition at each resolution of the generator; 0: the 3 of RGB."""

        rgb_fusion: Literal["early", "late"] = "early"
        """Where the discriminator fuses the RGB and the thermal image: at its input, or at its
        smallest features, after separate branches."""

        discriminator_norm: Literal["batch", "layer"] = "batch"
        """Normalization of the discriminator: the paper's, or layer normalization, which keeps the
        images of a batch apart, so that R1 is one image's own (Gulrajani et al. 2017)."""

        init_std: float = 0.02
        decay_start: float = 1.0
        """Fraction of the budget after which the learning rates fall linearly to 0; 1: never, as in
        the paper."""

        batch_size: int = 128

        @property
        def coupling(self) -> str | None:
            return "discriminator_norm=batch" if self.discriminator_norm == "batch" else None

    config: Config
    needs_pairs: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.generator = initialize(
            DcganGenerator(
                size=config.size,
                latent_size=config.latent_size,
                width=config.width,
                max_multiplier=config.max_width_multiplier,
                condition_channels=config.condition_channels,
                rgb_encoder=config.rgb_encoder,
            ),
            config.init_std,
        )
        self.discriminator = initialize(
            DcganDiscriminator(
                size=config.size,
                width=config.width,
                max_multiplier=config.max_width_multiplier,
                norm=config.discriminator_norm,
                late_fusion=config.rgb_fusion == "late",
            ),
            config.init_std,
        )
        if config.spectral_norm:
            self.discriminator.apply_spectral_norm()

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent:
        if self.config.latent_prior == "normal":
            return normal_latent(self, count, random, device)
        return torch.rand(count, self.config.latent_size, generator=random, device=device) * 2 - 1

    players = adam_players

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        config = self.config
        batch = next(batches)
        fake = self.translate(batch.rgb)

        # Two passes, because batch normalization would mix real and fake pairs.
        real_score = self._score(batch.rgb, batch.thermal)
        fake_score = self._score(batch.rgb, fake.detach())
        loss = smoothed_cross_entropy(real_score, fake_score, config.real_label)
        terms = {"adversarial": loss}
        terms |= r1_terms(config, batch.thermal, partial(self._score_pair, batch.rgb))
        yield Turn("discriminator", terms)

        terms = {"adversarial": F.softplus(-self._score(batch.rgb, fake)).mean()}
        terms |= similarity_terms(config, fake, batch.thermal)
        yield Turn("generator", terms)

    def _score(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self._score_pair(*scored_images(self.config, rgb, thermal))

    def _score_pair(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.discriminator(torch.cat([rgb, thermal], dim=1))

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)
