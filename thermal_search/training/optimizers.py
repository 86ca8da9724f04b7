"""The optimizers of a translator's players, built for the device that they run on."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer, RMSprop

from thermal_search.architectures.translator import OptimizerConfig, Translator


@dataclass(frozen=True)
class PlayerOptimizer:
    """A player's parameters and the optimizer that updates them."""

    parameters: list[nn.Parameter]
    optimizer: Optimizer
    config: OptimizerConfig

    def schedule(self, lr_factor: float, progress: float) -> None:
        """Sets the learning rate and the momentum at `progress` (0 .. 1) of the budget."""
        first, last = self.config.momentum
        for group in self.optimizer.param_groups:
            lr = self.config.lr * lr_factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
            if self.config.algorithm == "sgd":
                # In hundredths: a captured step keeps the momentum that it was captured with.
                group["momentum"] = round(first + (last - first) * progress, 2)

    @property
    def graph_key(self) -> Hashable:
        """What a captured step of this player cannot change (see `Translator.graph_key`)."""
        return tuple(group.get("momentum") for group in self.optimizer.param_groups)

    def reset(self) -> None:
        """Drops the optimizer's state, as when a network enters a new resolution."""
        self.optimizer.state.clear()

    def restore(self, state: dict[str, Any]) -> None:
        """Loads an optimizer's state, whichever device it was saved on."""
        own = [
            {key: group[key] for key in ("lr", "capturable") if key in group}
            for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(state)
        for group, device_options in zip(self.optimizer.param_groups, own, strict=True):
            group |= device_options


def build_optimizers(translator: Translator) -> dict[str, PlayerOptimizer]:
    """An optimizer for each player, by the player's name. The translator is on its device."""
    optimizers: dict[str, PlayerOptimizer] = {}
    for name, player in translator.players().items():
        parameters = [p for network in player.networks for p in network.parameters()]
        optimizer = _build(player.optimizer, parameters)
        optimizers[name] = PlayerOptimizer(parameters, optimizer, player.optimizer)
    return optimizers


def _build(config: OptimizerConfig, parameters: list[nn.Parameter]) -> Optimizer:
    device = parameters[0].device
    is_gpu = device.type == "cuda"
    # On a GPU a captured step reads its learning rate from the device.
    lr: Any = torch.tensor(config.lr, device=device) if is_gpu else config.lr
    if config.algorithm == "adam":
        # Fused: one pass over the weights instead of ten (8x on a CPU, measured alone).
        return Adam(
            parameters,
            lr=lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
            capturable=is_gpu,
        )
    if config.algorithm == "sgd":
        return SGD(parameters, lr=lr, momentum=config.momentum[0], fused=True)
    return RMSprop(parameters, lr=lr, alpha=0.99, eps=1e-8, capturable=is_gpu)
