"""What a setting's training costs, in operations: counted, so that it is the same on every machine.

The networks and a batch are tensors without content (torch's meta device), so that a step of any
size is counted within about a second and without memory.
"""

import contextlib
from collections.abc import Generator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.optim import SGD
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.architectures.growth import GrowthConfig
from thermal_search.architectures.translator import Translator
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.training.meta_results import result_of
from thermal_search.training.optimizers import PlayerOptimizer
from thermal_search.training.step import train_step

BUDGET = 10**6
"""Images of the budget in whose course growth is sampled: any large number."""

SAMPLES = 500
"""Points of the budget at which growth is sampled."""

META = torch.device("meta")


@dataclass(frozen=True)
class Cost:
    """Operations of training an image of one setting."""

    phases: tuple[tuple[float, float], ...]
    """The fraction of the budget at which each phase of growth ends, increasing to 1, and
    operations per image in it. One phase if the networks do not grow."""

    @property
    def per_image(self) -> float:
        """The mean over the whole budget."""
        return self.until(1.0)

    @property
    def at_full_size(self) -> float:
        """Per image when growth is finished."""
        return self.phases[-1][1]

    def until(self, share: float) -> float:
        """Operations up to a share (0 .. 1) of the budget, divided by the images of the whole."""
        total = start = 0.0
        for end, operations in self.phases:
            total += max(min(end, share) - start, 0.0) * operations
            start = end
        return total

    def done(self, share: float) -> float:
        """The fraction of all operations that a share (0 .. 1) of the budget takes."""
        return self.until(share) / self.per_image


def cost_of(architecture: str, size: int, parameters: Mapping[str, Any]) -> Cost:
    """The cost of a setting on images of `size` pixels, over one worker's batches.

    Multiplications and additions of a whole step: every turn of every player with its backward
    passes. Raises ValueError for unknown parameters.
    """
    return _cost_of(architecture, size, tuple(sorted(parameters.items())))


@lru_cache(maxsize=4096)
def _cost_of(architecture: str, size: int, parameters: tuple[tuple[str, Any], ...]) -> Cost:
    with META, Operations():
        translator = build(architecture, size, _one_microbatch(architecture, dict(parameters)))
    config = translator.config
    if not isinstance(config, GrowthConfig):
        # At the end of a budget: the extra critic steps that wgan begins with are few.
        return Cost(((1.0, _operations(translator, 1, 1)),))
    schedule = config.schedule
    ends: dict[int, int] = {}
    for sample in range(SAMPLES):
        ends[schedule.at((sample + 0.5) / SAMPLES).resolution] = sample
    phases: list[tuple[float, float]] = []
    for last in ends.values():
        # Counted where the resolution is no longer faded in, which costs hardly more.
        images = int((last + 0.5) / SAMPLES * BUDGET)
        phases.append(((last + 1) / SAMPLES, _operations(translator, images, BUDGET)))
    return Cost(tuple(phases))


def _one_microbatch(architecture: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A setting whose batch is a single microbatch: all of them cost the same, and what is computed
    once a batch almost nothing."""
    config = ARCHITECTURES[architecture].Config
    default = getattr(config, "microbatch_size", None)
    if default is None:
        return parameters
    batch = parameters.get("batch_size", config.batch_size)
    single = min(parameters.get("microbatch_size", default), batch)
    return parameters | {"batch_size": single, "orthogonal_regularization": False}


def _operations(translator: Translator, images: int, budget: int) -> float:
    """Of one training step after `images` of the budget, per image."""
    config = translator.config
    count, size = config.batch_size_at(images / budget), config.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a choice that is drawn is drawn again as now
        translator.begin_step(images, budget)
    with META:
        batch = Batch(torch.empty(count, 3, size, size), torch.empty(count, 1, size, size))
        with _without_autocast(), Operations() as operations:
            train_step(
                translator,
                _optimizers(translator),
                iter(lambda: batch, None),
                group=WorkerGroup(),
                autocast=nullcontext(),
            )
    return operations.count / count


@contextlib.contextmanager
def _without_autocast() -> Generator[None]:
    """A context where torch.autocast does nothing for tensors without content, of which it does not
    know. Whatever the precision, the operations are the same."""
    autocast = torch.autocast

    def known(device: str, *arguments: Any, **options: Any) -> Any:
        return nullcontext() if device == META.type else autocast(device, *arguments, **options)

    torch.autocast = known  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.autocast = autocast


def _optimizers(translator: Translator) -> dict[str, PlayerOptimizer]:
    """Of any kind: the fused ones do not run without content, and their operations are few."""
    optimizers: dict[str, PlayerOptimizer] = {}
    for name, player in translator.players().items():
        parameters = [p for network in player.networks for p in network.parameters()]
        optimizers[name] = PlayerOptimizer(parameters, SGD(parameters, lr=0.0), player.optimizer)
    return optimizers


class Operations(TorchDispatchMode):
    """Counts by torch's formulas. Its FlopCounterMode fails on the gradient of a penalty."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = result_of(func, args, kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.count += formula(*args, **kwargs, out_val=out)
        return out
