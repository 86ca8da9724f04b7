"""One architecture to compare: a peer's networks, trained by the peer's step and by ours."""

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from thermal_search.architectures.translator import (
    Config,
    OptimizerConfig,
    Player,
    Translator,
    Turn,
)
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.networks.padding import ReflectionPad
from thermal_search.training.cuda_graphs import StepRunner
from thermal_search.training.hardware import autocast_for, fastest_memory_format
from thermal_search.training.optimizers import build_optimizers

Networks = nn.ModuleDict
Step = Callable[[], object]
Draw = Callable[[], Batch]
ADAM = OptimizerConfig(algorithm="adam", lr=2e-4, betas=(0.5, 0.999))


@dataclass(frozen=True)
class Comparison:
    build: Callable[[], Mapping[str, nn.Module]]
    players: Mapping[str, tuple[str, ...]]
    """Each player's networks. A player has one optimizer, in the peer's step too."""

    build_peer_step: Callable[[Networks, Mapping[str, torch.optim.Optimizer], Draw], Step]
    turns: Callable[[Networks, Iterator[Batch]], Iterator[Turn]]
    """The same losses as turns, for our training step."""

    optimizer_config: OptimizerConfig = ADAM
    channels: tuple[int, int] = (3, 3)
    """Of the RGB and of the thermal images, as the peer's networks expect them."""

    uses_view: bool = False
    """Whether its networks call `Tensor.view` on feature maps, which fails on channels last."""

    def peer_step(self, draw: Draw, device: torch.device) -> Step:
        networks = self._networks(device)
        optimizers = {
            name: self._plain_optimizer(list(_module_of(networks, own).parameters()))
            for name, own in self.players.items()
        }
        return self.build_peer_step(networks, optimizers, draw)

    def our_step(self, draw: Draw, device: torch.device, precision: Any) -> Step:
        translator = _PeerTranslator(self, _with_our_padding(self._networks(device)))
        if not self.uses_view:
            translator.to(memory_format=fastest_memory_format(translator, device))
        runner = StepRunner(
            translator,
            build_optimizers(translator),
            iter(draw, None),
            group=WorkerGroup(),
            autocast=autocast_for(device, precision),
            device=device,
        )
        return runner.run

    def _networks(self, device: torch.device) -> Networks:
        torch.manual_seed(0)
        return nn.ModuleDict(self.build()).to(device)

    def _plain_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.optimizer_config.algorithm == "adam":
            return torch.optim.Adam(
                parameters, lr=self.optimizer_config.lr, betas=self.optimizer_config.betas
            )
        return torch.optim.RMSprop(parameters, lr=self.optimizer_config.lr)


class _PeerTranslator(Translator):
    """A peer's networks behind our interface, so that our training step can train them."""

    needs_pairs = True

    def __init__(self, comparison: Comparison, networks: Networks) -> None:
        super().__init__()
        self.config = Config(size=0)
        self.networks, self.comparison = networks, comparison

    def translate(self, rgb, z=None):
        raise NotImplementedError("Only the step is compared.")

    def players(self):
        return {
            name: Player((_module_of(self.networks, own),), self.comparison.optimizer_config)
            for name, own in self.comparison.players.items()
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        return self.comparison.turns(self.networks, batches)


def _with_our_padding(networks: Networks) -> Networks:
    """Replaces reflection padding by ours, which computes the same and is faster on CPUs."""
    for module in list(networks.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReflectionPad2d):
                module.register_module(name, ReflectionPad(child.padding[0]))
    return networks


def _module_of(networks: Networks, names: tuple[str, ...]) -> nn.ModuleList:
    """One module of these networks: it lists a parameter that they share only once."""
    return nn.ModuleList(networks[name] for name in names)


def load_module(path: Path) -> ModuleType:
    """Imports a file of a checkout, which must only define things."""
    spec = importlib.util.spec_from_file_location(f"peer_{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        sys.exit(f"{path} must be a file of the peer's checkout: pass the checkout's folder.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_definitions(path: Path, **options: Any) -> SimpleNamespace:
    """Runs the imports and definitions of a script that starts training when it is imported.

    `options` replace the values of its flags.
    """
    if not path.is_file():
        sys.exit(f"{path} must be a file of the peer's checkout: pass the checkout's folder.")
    definitions = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, definitions)]
    size, channels = options["img_size"], options["channels"]
    names: dict[str, Any] = {
        "opt": SimpleNamespace(**options),
        "img_shape": (channels, size, size),
        "Tensor": torch.FloatTensor,
    }
    exec(compile(tree, str(path), "exec"), names)  # the checkout the user named
    return SimpleNamespace(**names)


def full(score: Tensor, value: float) -> Tensor:
    """New targets at each step, as in the peers' scripts."""
    return torch.full_like(score, value)


def squared(score: Tensor, target: float) -> Tensor:
    return (score.float() - target).square().mean()
