"""WGAN: Wasserstein GAN.

Arjovsky et al., ICML 2017. https://arxiv.org/abs/1701.07875

DCGAN's networks in another game: a critic, kept nearly Lipschitz by clipping its weights, estimates
how far painted and real (rgb, thermal) pairs are apart, over several turns for each of the
generator's. The generator paints from a latent vector and sees the RGB image at every scale.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import nn

from thermal_search.architectures import translator
from thermal_search.architectures.translator import (
    OptimizerConfig,
    Player,
    Translator,
    Turn,
    l1_terms,
    normal_latent,
)
from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import wasserstein
from thermal_search.networks import DcganDiscriminator, DcganGenerator, initialize

WARMUP_GENERATOR_STEPS = 25
LONG_ROUND_EVERY = 500
"""The critic plays its long rounds in the first 25 generator steps and in every 500th."""

WARMUP_SHARE = 0.05
"""Of the budget, for the images of long rounds: a short trial would be nothing else."""


@final
class WGAN(Translator):
    @dataclass(frozen=True, kw_only=True)
    class Config(translator.L1Config):
        generator_lr: float = 5e-5
        critic_lr: float = 5e-5
        optimizer: Literal["rmsprop", "adam"] = "rmsprop"
        """The paper found momentum harmful, so Adam is only an alternative."""

        beta1: float = 0.0
        """Adam's first decay rate; the second is 0.999. RMSprop has none."""

        clip: float = 0.01
        """No critic parameter's magnitude exceeds this after a turn."""

        n_critic: int = 5
        """Critic turns for one generator turn, each on fresh images."""

        warmup_n_critic: int = 100
        """The same in the first generator steps and now and then."""

        latent_size: int = 100
        width: int = 64
        """Channels at half the size, of both networks."""

        channel_cap: int = 16
        """At most so many times `width` channels, at 4 x 4 pixels."""

        condition_channels: int = 32
        """Channels by which the generator sees the RGB image at each scale; 0: its 3 colors."""

        generator_norm: Literal["batch", "none"] = "batch"
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
                cap=config.channel_cap,
                condition_channels=config.condition_channels,
                norm=config.generator_norm,
            )
        )
        self.critic = initialize(
            DcganDiscriminator(size=config.size, width=config.width, cap=config.channel_cap)
        )
        self.generator_steps = 0
        self.warm_images = 0
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

    def graph_key(self) -> int:
        return self.n_critic

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        for _ in range(self.n_critic):
            batch = next(batches)
            with torch.no_grad():
                fake = self.translate(batch.rgb)
            loss = self._discriminator_loss(batch, fake)
            # How far apart the critic finds real and painted pairs: the paper's learning curve.
            yield Turn("critic", {"wasserstein": loss}, logged={"distance": -loss})
            self._clip()

        batch = next(batches)
        fake = self.translate(batch.rgb)
        score = self.critic(torch.cat([batch.rgb, fake], dim=1))
        terms = {"adversarial": wasserstein.generator(score)}
        terms |= l1_terms(self.config, fake, batch.thermal)
        yield Turn("generator", terms)

    def _discriminator_loss(self, batch: Batch, fake: Thermal) -> torch.Tensor:
        # Apart, not as one batch: batch normalization would mix them.
        real_score = self.critic(torch.cat([batch.rgb, batch.thermal], dim=1))
        fake_score = self.critic(torch.cat([batch.rgb, fake], dim=1))
        return wasserstein.discriminator(real_score, fake_score)

    @torch.no_grad()
    def _clip(self) -> None:
        for parameter in self.critic.parameters():
            parameter.clamp_(-self.config.clip, self.config.clip)

    def _n_critic(self, budget_images: int) -> int:
        config, steps = self.config, self.generator_steps
        if steps >= WARMUP_GENERATOR_STEPS and steps % LONG_ROUND_EVERY:
            return config.n_critic
        shown = config.batch_size * self.workers
        left = int(budget_images * WARMUP_SHARE) - self.warm_images
        warm = min(config.warmup_n_critic, left // shown)
        if warm <= config.n_critic:
            return config.n_critic
        self.warm_images += warm * shown
        return warm

    def get_extra_state(self) -> dict[str, int]:
        return {"generator_steps": self.generator_steps, "warm_images": self.warm_images}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.generator_steps, self.warm_images = state["generator_steps"], state["warm_images"]
