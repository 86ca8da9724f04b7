"""One training step: every turn of the game in order, each moving only its own player."""

import contextlib
import functools
import math
import time
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

from thermal_search.architectures.translator import OptimizerConfig, Translator
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import TrialDiverged
from thermal_search.images import Batch
from thermal_search.networks.progressive import ProgressiveNetwork

Precision = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True)
class PlayerOptimizer:
    """A player at the table: what it moves, and the optimizer that moves it."""

    parameters: list[nn.Parameter]
    optimizer: Optimizer
    recipe: OptimizerConfig

    def schedule(self, lr_factor: float, progress: float) -> None:
        """Sets what changes in the course of the budget, at `progress` (0 .. 1) of it."""
        first, last = self.recipe.momentum
        for group in self.optimizer.param_groups:
            lr = self.recipe.lr * lr_factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
            if self.recipe.algorithm == "sgd":
                # In hundredths: a recorded step keeps to the momentum it was recorded with.
                group["momentum"] = round(first + (last - first) * progress, 2)

    @property
    def graph_key(self) -> Hashable:
        """What a recorded step of this player cannot change (see `Translator.graph_key`)."""
        return tuple(group.get("momentum") for group in self.optimizer.param_groups)

    def reset(self) -> None:
        """Drops what the optimizer has gathered, as when a network enters a new resolution."""
        self.optimizer.state.clear()

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from an optimizer's state, on whichever device that was written."""
        own = [
            {key: group[key] for key in ("lr", "capturable") if key in group}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(state)
        for group, kept in zip(self.optimizer.param_groups, own, strict=True):
            group |= kept


def build_optimizers(translator: Translator) -> dict[str, PlayerOptimizer]:
    """An optimizer for each player of a translator that is on its device."""
    optimizers: dict[str, PlayerOptimizer] = {}
    for name, player in translator.players().items():
        parameters = [p for network in player.networks for p in network.parameters()]
        optimizer = _build(player.optimizer, parameters)
        optimizers[name] = PlayerOptimizer(parameters, optimizer, player.optimizer)
    return optimizers


def train_step(
    translator: Translator,
    optimizers: Mapping[str, PlayerOptimizer],
    batches: Iterator[Batch],
    *,
    group: WorkerGroup,
    autocast: contextlib.AbstractContextManager[Any],
) -> dict[str, Tensor]:
    """Plays one step and returns its terms, and what else its turns watch, by `player/term`,
    averaged over the workers.

    Raises TrialDiverged before a player moves on a loss that is not finite.
    """
    losses: dict[str, Tensor] = {}
    turns = translator.turns(batches)
    gathered: dict[str, Tensor] = {}  # terms of the parts of a batch whose player has yet to move
    while True:
        # Only the forward pass runs in the lower precision: a `with` inside the generator would
        # leak across its yields.
        with autocast:
            turn = next(turns, None)
        if turn is None:
            return losses
        player_optimizer = optimizers[turn.player]
        if not gathered:
            player_optimizer.optimizer.zero_grad(set_to_none=True)
        turn.loss.backward(inputs=player_optimizer.parameters)  # no one else's gradients
        for name, term in {**turn.terms, **turn.logged}.items():
            gathered[name] = gathered.get(name, 0) + term.detach().float()
        if not turn.steps_optimizer:
            continue
        terms = group.average_gradients(
            player_optimizer.parameters, torch.stack(list(gathered.values()))
        )
        named = {f"{turn.player}/{name}": term for name, term in zip(gathered, terms, strict=True)}
        gathered = {}
        if terms.device.type == "cpu":
            check_finite(named)
        player_optimizer.optimizer.step()
        losses |= named


def check_finite(losses: Mapping[str, Tensor]) -> None:
    """Raises TrialDiverged at the first loss that is not a number or is infinite.

    On a GPU every look waits for the device, so the loop looks once every few steps there; nothing
    is lost, for the state of the last evaluation is what is kept.
    """
    for name, value in losses.items():
        if not math.isfinite(number := value.item()):
            raise TrialDiverged(f"{name} became {number}")


def autocast_for(device: torch.device, precision: Literal["bf16", "fp32"]) -> torch.autocast:
    """Puts forward passes into bf16, or leaves them in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@functools.cache
def fastest_precision(device: torch.device) -> Literal["bf16", "fp32"]:
    """bf16 where the hardware is faster at it.

    A GPU's word is enough. CPUs that have the instructions may still be slower with them, so there
    a convolution of the common shape is timed in both.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    capabilities = torch.cpu.get_capabilities()
    if not (capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")):
        return "fp32"
    return "bf16" if _time_convolution(torch.bfloat16) < _time_convolution(None) else "fp32"


def fastest_memory_format(translator: nn.Module, device: torch.device) -> torch.memory_format:
    """How the weights of convolutions lie in memory, and with them the features.

    A GPU's matrix units take channels last without turning them around, which pays beside batch
    normalization. torch's instance normalization turns them around itself, and costs more.
    """
    has_batch_norm = any(isinstance(m, nn.BatchNorm2d) for m in translator.modules())
    is_last = device.type == "cuda" and has_batch_norm
    return torch.channels_last if is_last else torch.contiguous_format


def use_cudnn_benchmark(translator: nn.Module, device: torch.device) -> bool:
    """Whether cudnn is to try its algorithms for each new shape and keep the quickest.

    It takes seconds for each, which thousands of steps give back; a network that grows meets new
    shapes at each resolution.
    """
    grows = any(isinstance(m, ProgressiveNetwork) for m in translator.modules())
    return device.type == "cuda" and not grows


def _time_convolution(dtype: torch.dtype | None) -> float:
    images, weights = torch.ones(1, 256, 32, 32), torch.ones(256, 256, 3, 3)
    times: list[float] = []
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype is not None):
        for _ in range(4):
            started = time.perf_counter()
            F.conv2d(images, weights)
            times.append(time.perf_counter() - started)
    return min(times)


def _build(recipe: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimizer:
    device = parameters[0].device
    is_gpu = device.type == "cuda"
    # On a GPU a recorded step reads its learning rate from the device.
    lr: Any = torch.tensor(recipe.lr, device=device) if is_gpu else recipe.lr
    if recipe.algorithm == "adam":
        # Fused: one pass over the weights instead of ten (8x on a CPU, measured alone).
        return Adam(
            parameters,
            lr=lr,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=True,
            capturable=is_gpu,
        )
    if recipe.algorithm == "sgd":
        return SGD(parameters, lr=lr, momentum=recipe.momentum[0], fused=True)
    return RMSprop(parameters, lr=lr, alpha=0.99, eps=1e-8, capturable=is_gpu)
