"""One system to compare: a peer's networks, the peer's step over them, and ours."""

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
class Match:
    build: Callable[[], Mapping[str, nn.Module]]
    players: Mapping[str, tuple[str, ...]]
    """Which networks each player moves; one optimizer each, in the peer's step too."""

    peer: Callable[[Networks, Mapping[str, torch.optim.Optimizer], Draw], Step]
    play: Callable[[Networks, Iterator[Batch]], Iterator[Turn]]
    """The same losses as turns, for our trainer."""

    recipe: OptimizerConfig = ADAM
    channels: tuple[int, int] = (3, 3)
    """Of the images drawn as RGB and as thermal: the peer's networks decide."""

    views: bool = False
    """Whether its networks look at features as rows, which channels last has not."""

    def peer_step(self, draw: Draw, device: torch.device) -> Step:
        networks = self._networks(device)
        optimizers = {
            name: self._plain_optimizer(list(_together(networks, own).parameters()))
            for name, own in self.players.items()
        }
        return self.peer(networks, optimizers, draw)

    def our_step(self, draw: Draw, device: torch.device, precision: Any) -> Step:
        translator = _Borrowed(self, _reflecting(self._networks(device)))
        if not self.views:
            translator.to(memory_format=fastest_memory_format(translator, device))
        steps = StepRunner(
            translator,
            build_optimizers(translator),
            iter(draw, None),
            group=WorkerGroup(),
            autocast=autocast_for(device, precision),
            device=device,
        )
        return steps.run

    def _networks(self, device: torch.device) -> Networks:
        torch.manual_seed(0)
        return nn.ModuleDict(self.build()).to(device)

    def _plain_optimizer(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.recipe.algorithm == "adam":
            return torch.optim.Adam(parameters, lr=self.recipe.lr, betas=self.recipe.betas)
        return torch.optim.RMSprop(parameters, lr=self.recipe.lr)


class _Borrowed(Translator):
    """A peer's networks, trained by us."""

    needs_pairs = True

    def __init__(self, match: Match, networks: Networks) -> None:
        super().__init__()
        self.config = Config(size=0)
        self.networks, self.match = networks, match

    def translate(self, rgb, z=None):
        raise NotImplementedError("Only the step is compared.")

    def players(self):
        return {
            name: Player((_together(self.networks, own),), self.match.recipe)
            for name, own in self.match.players.items()
        }

    def turns(self, batches: Iterator[Batch]) -> Iterator[Turn]:
        return self.match.run(self.networks, batches)


def _reflecting(networks: Networks) -> Networks:
    """With the padding that our own networks have: by reflection too, and quicker on CPUs."""
    for module in list(networks.modules()):
        for name, part in module.named_children():
            if isinstance(part, nn.ReflectionPad2d):
                module.register_module(name, ReflectionPad(part.padding[0]))
    return networks


def _together(networks: Networks, names: tuple[str, ...]) -> nn.ModuleList:
    """One module, whose parameters are each named once however many networks share them."""
    return nn.ModuleList(networks[name] for name in names)


def load_module(path: Path) -> ModuleType:
    """A file of a checkout that only defines things."""
    spec = importlib.util.spec_from_file_location(f"peer_{path.parent.name}_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        sys.exit(f"{path} must be a file of the peer's checkout: pass the checkout's folder.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_definitions(path: Path, **options: Any) -> SimpleNamespace:
    """The networks of a script that trains as soon as it is run: its imports and definitions alone,
    with `options` in the place of its flags."""
    if not path.is_file():
        sys.exit(f"{path} must be a file of the peer's checkout: pass the checkout's folder.")
    kept = (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef)
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, kept)]
    size, channels = options["img_size"], options["channels"]
    names: dict[str, Any] = {
        "opt": SimpleNamespace(**options),
        "img_shape": (channels, size, size),
        "Tensor": torch.FloatTensor,
    }
    exec(compile(tree, str(path), "exec"), names)  # the checkout the user named
    return SimpleNamespace(**names)


def full(score: Tensor, value: float) -> Tensor:
    """Targets made anew at each step, as the peers' scripts do."""
    return torch.full_like(score, value)


def squared(score: Tensor, target: float) -> Tensor:
    return (score.float() - target).square().mean()
