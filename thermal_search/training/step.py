"""One training step: every turn of the game in order, each updating only its own player."""

import contextlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from thermal_search.architectures.translator import Translator
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import TrialDiverged
from thermal_search.images import Batch
from thermal_search.training.augmentation import Augmentation
from thermal_search.training.optimizers import PlayerOptimizer


def train_step(
    translator: Translator,
    optimizers: Mapping[str, PlayerOptimizer],
    batches: Iterator[Batch],
    *,
    group: WorkerGroup,
    autocast: contextlib.AbstractContextManager[Any],
) -> dict[str, Tensor]:
    """Runs one step on augmented batches and returns its loss terms and what its turns log besides,
    by `player/term`, averaged over the workers.

    On a CPU, raises TrialDiverged before a player is updated by a loss that is not finite.
    """
    losses: dict[str, Tensor] = {}
    turns = translator.turns(map(Augmentation.of(translator), batches))
    accumulated: dict[str, Tensor] = {}  # terms of the microbatches since the last optimizer step
    while True:
        # Only the forward pass runs in the lower precision: a `with` inside the generator would
        # leak across its yields.
        with autocast:
            turn = next(turns, None)
        if turn is None:
            return losses
        player_optimizer = optimizers[turn.player]
        if not accumulated:
            player_optimizer.optimizer.zero_grad(set_to_none=True)
        turn.loss.backward(inputs=player_optimizer.parameters)  # no other player's gradients
        for name, term in {**turn.terms, **turn.logged}.items():
            accumulated[name] = accumulated.get(name, 0) + term.detach().float()
        if not turn.steps_optimizer:
            continue
        averaged = group.average_gradients(
            player_optimizer.parameters, torch.stack(list(accumulated.values()))
        )
        terms = {
            f"{turn.player}/{name}": term for name, term in zip(accumulated, averaged, strict=True)
        }
        accumulated = {}
        if averaged.device.type == "cpu":
            check_finite(terms)
        player_optimizer.optimizer.step()
        losses |= terms


def check_finite(losses: Mapping[str, Tensor]) -> None:
    """Raises TrialDiverged at the first loss that is NaN or infinite.

    On a GPU every check waits for the device, so the training loop checks once every few steps
    there. Nothing is lost: a trial resumes from the state of its last evaluation.
    """
    for name, value in losses.items():
        if not math.isfinite(number := value.item()):
            raise TrialDiverged(f"{name} became {number}")
