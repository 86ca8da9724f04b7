"""Training steps that a GPU replays.

A GAN's step at batch size 1 is hundreds of small kernels; launched one by one they cost the host
more time than the GPU. A CUDA graph launches all of them at once: the first steps of a kind are
played as they are, the next is recorded, and from then on only new batches are copied in.
"""

import contextlib
import logging
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from thermal_search.architectures.translator import Translator
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.training.step import PlayerOptimizer, train_step

WARMUP_STEPS = 3
"""StepRunner of a graph_key that are played before one is recorded: the libraries choose their algorithms
and the optimizers make their state."""

MAX_GRAPHS = 12
"""The one that was not replayed for longest makes room for the next."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _CapturedGraph:
    graph: torch.cuda.CUDAGraph
    batches: list[Batch]
    """What it draws: to be filled before it is replayed."""

    losses: dict[str, Tensor]
    """What it returns, written anew by each replay."""


class StepRunner:
    """Plays a translator's training steps, one after another, as fast as the device allows.

    Recorded are steps on a GPU, of one worker or of several that agree by NCCL.
    """

    def __init__(
        self,
        translator: Translator,
        optimizers: Mapping[str, PlayerOptimizer],
        batches: Iterator[Batch],
        *,
        group: WorkerGroup,
        autocast: contextlib.AbstractContextManager[Any],
        device: torch.device,
    ) -> None:
        self.translator, self.optimizers, self.batches = translator, optimizers, batches
        self.group, self.autocast = group, autocast
        self.device = device
        is_gpu = device.type == "cuda"
        self.use_cuda_graphs = is_gpu and (group.size == 1 or dist.get_backend() == "nccl")
        self.stream = torch.cuda.Stream(device) if is_gpu else None
        self.reset()

    def reset(self) -> None:
        """Drops all recordings: to be called when an optimizer's state or a network is replaced."""
        self.graphs: dict[Hashable, _CapturedGraph] = {}
        self.eager_runs: dict[Hashable, tuple[int, int]] = {}
        """How often a graph_key was played unrecorded, and how many batches it draws."""

        self.pool: Any = None

    def run(self) -> dict[str, Tensor]:
        """Plays the step that the translator has begun, and returns what `train_step` does.

        What a replayed step returns is written over by the next one.
        """
        if self.stream is None:
            return self._train(self.batches)
        # All on one stream, for gradients gather on the one of their first use.
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        with torch.cuda.stream(self.stream):
            losses = self._run_or_replay() if self.use_cuda_graphs else self._train(self.batches)
        outer.wait_stream(self.stream)
        return losses

    def _run_or_replay(self) -> dict[str, Tensor]:
        players = (player_optimizer.graph_key for player_optimizer in self.optimizers.values())
        graph_key = (self.translator.graph_key(), *players)
        if graph := self.graphs.pop(graph_key, None):
            self.graphs[graph_key] = graph  # the last that makes room
            return self._replay(graph)
        runs, drawn = self.eager_runs.get(graph_key, (0, 0))
        if runs < WARMUP_STEPS:
            counted = _Counted(self.batches)
            losses = self._train(counted)
            self.eager_runs[graph_key] = runs + 1, counted.count
            return losses
        return self._capture(graph_key, [_copy(next(self.batches)) for _ in range(drawn)])

    def _replay(self, graph: _CapturedGraph) -> dict[str, Tensor]:
        with torch.no_grad():
            for place in graph.batches:
                batch = next(self.batches)
                place.rgb.copy_(batch.rgb, non_blocking=True)
                place.thermal.copy_(batch.thermal, non_blocking=True)
        graph.graph.replay()
        return graph.losses

    def _capture(self, graph_key: Hashable, batches: list[Batch]) -> dict[str, Tensor]:
        """Records a step, and plays it."""
        graph = torch.cuda.CUDAGraph()
        try:
            # The threads of others may use the device meanwhile.
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                losses = self._train(iter(batches))
        except Exception as error:
            # Out of memory, perhaps: a graph keeps what a played step gives back. WorkerLost
            # too, though nobody is: what is recorded is not yet asked of the others.
            self.use_cuda_graphs = False
            self.reset()
            self._leave_capture()
            name = type(self.translator).__name__
            logger.warning("%s is played without graph: %s", name, str(error).split("\n")[0])
            return self._train(iter(batches))
        self.pool = self.pool or graph.pool()
        if len(self.graphs) == MAX_GRAPHS:
            del self.graphs[next(iter(self.graphs))]
        self.graphs[graph_key] = _CapturedGraph(graph, batches, losses)
        graph.replay()
        return losses

    def _leave_capture(self) -> None:
        """torch's random generator believes in a graph that failed until one succeeds."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            torch.rand(1, device=self.device)

    def _train(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        return train_step(
            self.translator, self.optimizers, batches, group=self.group, autocast=self.autocast
        )


class _Counted:
    """Counts what is drawn."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches, self.count = batches, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.count += 1
        return next(self.batches)


def _copy(batch: Batch) -> Batch:
    return Batch(batch.rgb.clone(), batch.thermal.clone())
