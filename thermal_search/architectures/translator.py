"""The one interface every architecture implements."""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor, nn

from thermal_search.images import Batch, Latent, Rgb, Thermal
from thermal_search.losses import pixel_loss


@dataclass(frozen=True)
class Turn:
    """One player's move: the loss terms, already weighted, that it minimizes."""

    player: str
    terms: dict[str, Tensor]
    logged: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """What is logged beside the terms and not minimized."""

    steps_optimizer: bool = True
    """False for all but the last part of a large batch: gradients gather until the player moves."""

    @property
    def loss(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How a player moves. The trainer builds it (fused, on the right device)."""

    algorithm: Literal["adam", "rmsprop", "sgd"]
    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's two decay rates; RMSprop ignores them and smooths by 0.99, as in its paper."""

    momentum: tuple[float, float] = (0.0, 0.0)
    """SGD's at the start and, reached linearly, at the end of the budget."""

    weight_decay: float = 0.0
    """Adam's, added to the gradient (L2), as the papers before AdamW mean it."""


@dataclass(frozen=True)
class Player:
    """One side of the game: the networks it moves, and how."""

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
    """What every architecture is told; each adds its own, with the published values as defaults."""

    size: int
    """Height and width of the images in pixels: a power of two from 32."""

    batch_size: int = 1
    """Images a worker shows in one training step."""

    ema_half_life_images: int = 0
    """Images after which a generator weight has half left the moving average; 0: no average."""


@dataclass(frozen=True, kw_only=True)
class L1Config(Config):
    """The fields of `l1_terms`: an optional pixel loss for papers that have none."""

    l1: bool = False
    """Whether the generator also minimizes the L1 loss. Not part of the paper."""

    l1_weight: float = 100.0
    """Weight of the L1 loss. The adversarial term has weight 1."""


def l1_terms(config: L1Config, fake: Thermal, real: Thermal) -> dict[str, Tensor]:
    """The generator's weighted L1 loss as the term `l1`; no term if `config.l1` is off."""
    return {"l1": pixel_loss(fake, real, config.l1_weight)} if config.l1 else {}


class Translator(nn.Module, ABC):
    """An RGB -> thermal GAN: its networks, and the game that trains them.

    The trainer owns everything else: optimizers, devices, precision, gradient averaging, moving
    averages, metrics, checkpoints. Everything needed to resume is a parameter or a buffer here, or
    passes through `get_extra_state`.
    """

    # Each architecture has its own, under the same name. Declared as Any because a class in a class
    # cannot be named in an annotation that shadows it.
    Config: ClassVar[Any]

    needs_pairs: ClassVar[bool]
    """Whether `Batch.rgb` and `Batch.thermal` must show the same scenes."""

    config: Any
    """Its Config, which extends the one above."""

    generator: nn.Module
    """The RGB -> thermal network: what is averaged, judged and exported."""

    workers: int = 1
    """How many play together, each with its own batch; the trainer tells before the first step."""

    @abstractmethod
    def translate(self, rgb: Rgb, z: Latent | None = None) -> Thermal:
        """Paint the thermal images of `rgb`, in -1 .. 1, with `self.generator` alone.

        `z` is what `draw_latent` returned; None draws a fresh one where the architecture has any.
        """

    @abstractmethod
    def players(self) -> Mapping[str, Player]:
        """Who plays, by the name its turns carry. The networks of two players never overlap."""

    @abstractmethod
    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        """Play one training step, one yield per move; draw as many batches as the paper does.

        The trainer updates `turn.player` before asking for the next turn, so code after a `yield`
        sees the moved networks. One step counts as `batch_size` images shown by each worker.

        All that it changes or draws lies on the device: what is counted or chosen on the host,
        `begin_step` does. A GPU replays a step without asking here again (see `pattern`).
        """

    def draw_latent(
        self, count: int, random: Generator | None = None, device: torch.device | None = None
    ) -> Latent | None:
        """`count` latent vectors from the prior; None where there is no latent.

        `random` belongs to the device, which is the CPU where none is named.
        """
        return None

    def latent_for(self, rgb: Rgb, z: Latent | None) -> Latent:
        """`z`, or fresh draws where there is none: for architectures that have a latent."""
        drawn = self.draw_latent(len(rgb), device=rgb.device) if z is None else z
        assert drawn is not None
        return drawn.to(rgb.device, non_blocking=True)

    def init_from_data(self, rgb: Rgb) -> None:
        """Shown some training images before the first step, the same on every worker.

        For what must come from the data and stay: buffers, which checkpoints keep.
        """

    def begin_step(self, images: int, budget_images: int) -> bool:
        """Told before every step: images shown so far, and the trial's full budget of them.

        True asks for fresh optimizers: a growing network has entered a new resolution.
        """
        return False

    def graph_key(self) -> Hashable:
        """What the step that has begun depends on, beside weights, buffers, batches, random draws
        and learning rates: steps of equal patterns do the same work."""
        return ()

    def learning_rate_factor(self, images: int, budget_images: int) -> float:
        """What the learning rates are multiplied by, given what `begin_step` is told."""
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


def constant_then_linear(images: int, budget_images: int, decay_start: float) -> float:
    """1 until the share `decay_start` of the budget, then falling linearly to 0 at its end.

    Always 1 where the share is 1, beyond the budget too.
    """
    progress = images / budget_images
    if decay_start >= 1 or progress <= decay_start:
        return 1.0
    return max(0.0, (1 - progress) / (1 - decay_start))


def halved(images: int, every: int) -> float:
    """1 at first, halved after each `every` images."""
    return 0.5 ** (images // every)
