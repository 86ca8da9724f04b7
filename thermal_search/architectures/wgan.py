"""WGAN: Wasserstein GAN.

Arjovsky et al., ICML 2017. https://arxiv.org/abs/1701.07875

DCGAN's networks with the Wasserstein loss: a critic, kept Lipschitz by weight clipping, estimates
the distance between real and generated (rgb, thermal) pairs, in several turns per generator turn.
The generator decodes a latent vector, with the RGB image as a condition at every resolution.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.architectures import translator
from thermal_search.architectures.additions import DecoderConfig, scored_images, similarity_terms
from thermal_search.architectures.translator import (
    OptimizerConfig,
    Player,
    Translator,
    Turn,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import wasserstein
from thermal_search.networks import DcganDiscriminator, DcganGenerator, initialize

WARMUP_GENERATOR_STEPS = 25
WARMUP_EVERY = 500
"""The critic takes `warmup_n_critic` turns in the first 25 generator steps and in every 500th."""

WARMUP_FRACTION = 0.05
"""Upper limit of the budget's fraction for these steps, which would fill a short trial."""


@final
class WGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(DecoderConfig):
        generator_lr: float = 5e-5
        critic_lr: float = 5e-5
        optimizer: Literal["rmsprop", "adam"] = "rmsprop"
        """The paper advises against momentum; Adam is an alternative."""

        beta1: float = 0.0
        """Adam's beta1; beta2 is 0.999. RMSprop ignores it."""

        weight_clip: float = 0.01
        """The critic's parameters are clipped to this magnitude after each of its turns."""

        n_critic: int = 5
        """Critic turns per generator turn, each on a new batch."""

        warmup_n_critic: int = 100
        """Critic turns in the first generator steps and in every 500th."""

        latent_size: int = 100
        width: int = 64
        """Channels at half the image size, of both networks."""

        max_width_multiplier: int = 16
        """The deepest layers have at most this many times `width` channels."""

        condition_channels: int = 32
        """Channels of the RGB condition at each resolution of the generator; 0: the 3 of RGB."""

        generator_norm: Literal["batch", "none"] = "batch"
        decay_start: float = 1.0
        """Fraction of the budget after which the learning rates fall linearly to 0; 1: never, as in
        the paper."""

        batch_size: int = 64

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
                norm=config.generator_norm,
            )
        )
        self.critic = initialize(
            DcganDiscriminator(
                size=config.size, width=config.width, max_multiplier=config.max_width_multiplier
            )
        )
        self.generator_steps = 0
        self.warmup_images = 0
        self.n_critic = config.n_critic

    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        return self.generator(rgb, self.latent_for(rgb, z))

    draw_latent = normal_latent

    def players(self) -> Mapping[str, Player]:
        config = self.config

        def player(network: nn.Module, lr: float) -> Player:
            betas = config.beta1, 0.999
            return Player(
                (network,), OptimizerConfig(algorithm=config.optimizer, lr=lr, betas=betas)
            )

        return {
            "critic": player(self.critic, config.critic_lr),
            "generator": player(self.generator, config.generator_lr),
        }

    def begin_step(self, images: int, budget_images: int) -> bool:
        self.n_critic = self._n_critic(budget_images)
        self.generator_steps += 1
        return False

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        return translator.constant_then_linear(images, budget_images, self.config.decay_start)

    def graph_key(self) -> int:
        return self.n_critic

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        for _ in range(self.n_critic):
            batch = next(batches)
            with torch.no_grad():
                fake = self.translate(batch.rgb)
            loss = self._critic_loss(batch, fake)
            # The estimated Wasserstein distance, which is the paper's learning curve.
            yield Turn("critic", {"wasserstein": loss}, logged={"distance": -loss})
            self._clip_weights()

        batch = next(batches)
        fake = self.translate(batch.rgb)
        terms = {"adversarial": wasserstein.generator(self._score(batch.rgb, fake))}
        terms |= similarity_terms(self.config, fake, batch.thermal)
        yield Turn("generator", terms)

    def _critic_loss(self, batch: Batch, fake: Thermal) -> Tensor:
        # Two passes, because batch normalization would mix real and fake pairs.
        real_score = self._score(batch.rgb, batch.thermal)
        fake_score = self._score(batch.rgb, fake)
        return wasserstein.discriminator(real_score, fake_score)

    def _score(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        return self.critic(torch.cat(scored_images(self.config, rgb, thermal), dim=1))

    @torch.no_grad()
    def _clip_weights(self) -> None:
        for parameter in self.critic.parameters():
            parameter.clamp_(-self.config.weight_clip, self.config.weight_clip)

    def _n_critic(self, budget_images: int) -> int:
        config, steps = self.config, self.generator_steps
        if steps >= WARMUP_GENERATOR_STEPS and steps % WARMUP_EVERY:
            return config.n_critic
        turn_images = config.batch_size * self.workers
        left = int(budget_images * WARMUP_FRACTION) - self.warmup_images
        n_critic = min(config.warmup_n_critic, left // turn_images)
        if n_critic <= config.n_critic:
            return config.n_critic
        self.warmup_images += n_critic * turn_images
        return n_critic

    def get_extra_state(self) -> dict[str, int]:
        return {"generator_steps": self.generator_steps, "warmup_images": self.warmup_images}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.generator_steps, self.warmup_images = state["generator_steps"], state["warmup_images"]
