"""The interface that every architecture implements."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from thermal_search.images import Batch, Latent, Rgb, Thermal


@dataclass(frozen=True)
class Turn:
    """One update of one player: the weighted loss terms that it minimizes."""

    player: str
    terms: dict[str, Tensor]
    logged: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Values that are logged with the terms and not minimized."""

    steps_optimizer: bool = True
    """False to accumulate gradients: for all microbatches of a batch but the last."""

    @property
    def loss(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """A player's optimizer, which the trainer builds (fused, on the right device)."""

    algorithm: Literal["adam", "rmsprop", "sgd"]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's decay rates. RMSprop ignores them and smooths by 0.99, as in its paper."""

    momentum: tuple[float, float] = (0.0, 0.0)
    """SGD's momentum at the start and at the end of the budget; linear in between."""

    weight_decay: float = 0.0
    """Adam's weight decay: an L2 term in the gradient, as in the papers before AdamW."""


@dataclass(frozen=True)
class Player:
    """One side of the game: the networks that it updates, and with which optimizer."""

    networks: tuple[nn.Module, ...]
    optimizer: OptimizerConfig


def adam_player(
    *networks: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float = 0.0
) -> Player:
    """A player that updates its networks with Adam."""
    optimizer = OptimizerConfig(algorithm="adam", lr=lr, betas=betas, weight_decay=weight_decay)
    return Player(networks, optimizer)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The fields of every architecture; each adds its own. Defaults are the published values."""

    size: int
    """Height and width of the images in pixels: a power of two from 32."""

    batch_size: int = 1
    """Images per worker and batch (see `batch_size_at`)."""

    ema_half_life_images: int = 0
    """Half-life of the generator's exponential moving average, in images shown; 0: no average. See
    `ema_half_life_at`."""

    crop_scale: float = 1.0
    """Training images are enlarged by this factor and cropped to their size at a random position;
    1: not at all."""

    color_jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation of RGB images in training."""

    def __post_init__(self) -> None:
        if not self.crop_scale >= 1:
            raise ValueError(f"crop_scale must be at least 1, but got {self.crop_scale}.")
        if not 0 <= self.color_jitter <= 1:
            raise ValueError(f"color_jitter must be from 0 to 1, but got {self.color_jitter}.")

    def batch_size_at(self, progress: float) -> int:
        """Images per worker and batch at `progress` (0 .. 1) of the budget."""
        return self.batch_size

    def ema_half_life_at(self, progress: float) -> float:
        """The half-life of the moving average at `progress` (0 .. 1) of the budget."""
        return float(self.ema_half_life_images)

    @property
    def loss_networks(self) -> frozenset[str]:
        """The pretrained networks that it trains with, by name; no search may measure with them."""
        return frozenset()

    @property
    def generator_turns(self) -> int:
        """Turns of the generator in one training step."""
        return 1


class Translator(nn.Module, ABC):
    """An RGB -> thermal GAN: its networks, and the game that trains them.

    The trainer owns everything else: optimizers, devices, precision, gradient averaging, moving
    averages, metrics, checkpoints. All state needed to resume is a parameter, a buffer, or part of
    `get_extra_state`.
    """

    # Each architecture defines its own nested class of this name. Any, because an annotation cannot
    # name the nested class that shadows it.
    Config: ClassVar[Any]

    needs_pairs: ClassVar[bool]
    """Whether `Batch.rgb` and `Batch.thermal` must show the same scenes."""

    grows: ClassVar[bool] = False
    """Whether the shapes of its features change while it trains."""

    config: Any
    """An instance of this architecture's Config."""

    generator: nn.Module
    """The RGB -> thermal network that is averaged, evaluated and exported."""

    workers: int = 1
    """Number of data-parallel workers, each with its own batch; the trainer sets it."""

    @abstractmethod
    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        """Generates the thermal images of `rgb`, in -1 .. 1, with `self.generator` alone.

        `z` comes from `draw_latent`; None draws one if the architecture has a latent.
        """

    @property
    def size_multiple(self) -> int | None:
        """What both sides of an RGB image must be a multiple of, if `translate` takes images of any
        size; None if it takes only those of the size that it was built for."""
        return None

    @abstractmethod
    def players(self) -> Mapping[str, Player]:
        """The players by name. No two of them share a network."""

    @abstractmethod
    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        """Yields the turns of a training step: one per update, on as many batches as in the paper.

        The trainer updates `turn.player` before it asks for the next turn, so code after a `yield`
        uses the updated networks. One step counts as one batch of images shown per worker.

        Everything changed or sampled here lives on the device. Counters and choices on the host
        belong in `begin_step`: a CUDA graph replays a step without running this code (see
        `graph_key`).
        """

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent | None:
        """`count` latent vectors from the prior; None if the architecture has no latent.

        `device` defaults to the CPU. `random` must be a generator of that device.
        """
        return None

    def latent_for(self, rgb: Rgb, z: Latent | None) -> Latent:
        """`z` on the device of `rgb`, or new draws if it is None. Needs a `draw_latent`."""
        drawn = self.draw_latent(len(rgb), device=rgb.device) if z is None else z
        assert drawn is not None
        return drawn.to(rgb.device, non_blocking=True)

    def init_from_data(self, batch: Batch) -> None:
        """Initializes weights and buffers from some training images, before the first step.

        Every worker passes its own images, and then takes the weights and buffers of rank 0.
        """

    def begin_step(self, images: int, budget_images: int) -> bool:
        """Prepares a step, after `images` of the trial's budget have been shown.

        True asks for new optimizers: new layers of a progressive network begin or end to fade in.
        """
        return False

    def graph_key(self) -> Hashable:
        """Identifies the kernels of the step that has begun.

        Two steps with equal keys differ only in weights, buffers, batches, random draws and
        learning rates, so that they can share a CUDA graph.
        """
        return ()

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        """The factor on all learning rates, after `images` of the budget have been shown."""
        return 1.0


def normal_latent(
    self: Translator,
    count: int,
    random: Generator | None = None,
    device: torch.device | None = None,
) -> Latent:
    """`draw_latent` of the architectures whose latent is N(0, 1) with `config.latent_size` entries.

    A class takes it by `draw_latent = normal_latent`.
    """
    return torch.randn(count, self.config.latent_size, generator=random, device=device)


def adam_players(self: Translator) -> Mapping[str, Player]:
    """`players` of the architectures with one discriminator, both trained by Adam.

    The Config has the fields `discriminator_lr`, `generator_lr` and `beta1`; beta2 is 0.999. A
    class takes it by `players = adam_players`.
    """
    config, betas = self.config, (self.config.beta1, 0.999)
    discriminator = self.get_submodule("discriminator")
    return {
        "discriminator": adam_player(discriminator, lr=config.discriminator_lr, betas=betas),
        "generator": adam_player(self.generator, lr=config.generator_lr, betas=betas),
    }


def constant_then_linear(images: int, budget_images: int, decay_start: float) -> float:
    """1 until the fraction `decay_start` of the budget, then linearly to 0 at its end.

    Always 1 if `decay_start` is 1, even beyond the budget.
    """
    progress = images / budget_images
    if decay_start >= 1 or progress <= decay_start:
        return 1.0
    return max(0.0, (1 - progress) / (1 - decay_start))


def halved(images: int, budget_images: int, fraction: float) -> float:
    """1 at first, halved each time that another `fraction` of the budget has been shown."""
    return 0.5 ** int(images / (fraction * budget_images))
