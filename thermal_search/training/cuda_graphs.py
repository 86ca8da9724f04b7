"""Training steps as CUDA graphs.

A GAN's step at batch size 1 is hundreds of small kernels; launched one by one they cost the host
more time than the GPU. A CUDA graph launches all of them at once: the first steps of each graph key
run eagerly, the next is captured, and every later one copies new batches in and replays the graph.
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
from thermal_search.training.optimizers import PlayerOptimizer
from thermal_search.training.step import train_step

WARMUP_STEPS = 3
"""Eager steps of a graph key before one is captured: in them libraries choose their algorithms and
optimizers create their state."""

MAX_GRAPHS = 12
"""Graphs in memory. The least recently replayed one is dropped for another."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _CapturedGraph:
    graph: torch.cuda.CUDAGraph
    batches: list[Batch]
    """The batches that the step draws, filled before each replay."""

    losses: dict[str, Tensor]
    """What the step returns, overwritten by each replay."""


class StepRunner:
    """Runs a translator's training steps, one after another, as fast as the device allows.

    CUDA graphs are used on a GPU, by one worker or by several that communicate through NCCL.
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
        """Drops all graphs. Call it when an optimizer's state or a network is replaced."""
        self.graphs: dict[Hashable, _CapturedGraph] = {}
        self.eager_runs: dict[Hashable, tuple[int, int]] = {}
        """By graph key: how many steps ran eagerly, and how many batches such a step draws."""

        self.pool: Any = None

    def run(self) -> dict[str, Tensor]:
        """Runs the step that the translator has begun. Returns the same as `train_step`.

        The next replay overwrites what a replayed step returns.
        """
        if self.stream is None:
            return self._train(self.batches)
        # All on one stream, because gradients accumulate on the stream of their first use.
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
            self.graphs[graph_key] = graph  # at the end: the first one is the next to be dropped
            return self._replay(graph)
        runs, batch_count = self.eager_runs.get(graph_key, (0, 0))
        if runs < WARMUP_STEPS:
            counted = _CountedBatches(self.batches)
            losses = self._train(counted)
            self.eager_runs[graph_key] = runs + 1, counted.count
            return losses
        return self._capture(graph_key, [_copy(next(self.batches)) for _ in range(batch_count)])

    def _replay(self, graph: _CapturedGraph) -> dict[str, Tensor]:
        with torch.no_grad():
            for static_batch in graph.batches:
                batch = next(self.batches)
                static_batch.rgb.copy_(batch.rgb, non_blocking=True)
                static_batch.thermal.copy_(batch.thermal, non_blocking=True)
        graph.graph.replay()
        return graph.losses

    def _capture(self, graph_key: Hashable, batches: list[Batch]) -> dict[str, Tensor]:
        """Captures a step on these batches and replays it; runs it eagerly if that fails."""
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use the device meanwhile.
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                losses = self._train(iter(batches))
        except Exception as error:
            # Out of memory, perhaps: a graph keeps memory that an eager step frees. WorkerLost
            # too, although no worker is lost: a captured collective has not run yet.
            self.use_cuda_graphs = False
            self.reset()
            self._leave_capture()
            name = type(self.translator).__name__
            logger.warning("%s runs without CUDA graphs: %s", name, str(error).split("\n")[0])
            return self._train(iter(batches))
        self.pool = self.pool or graph.pool()
        if len(self.graphs) == MAX_GRAPHS:
            del self.graphs[next(iter(self.graphs))]
        self.graphs[graph_key] = _CapturedGraph(graph, batches, losses)
        graph.replay()
        return losses

    def _leave_capture(self) -> None:
        """After a failed capture, torch's random generator stays in capture mode until another
        capture succeeds."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            torch.rand(1, device=self.device)

    def _train(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        return train_step(
            self.translator, self.optimizers, batches, group=self.group, autocast=self.autocast
        )


class _CountedBatches:
    """Counts the batches that are drawn."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches, self.count = batches, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.count += 1
        return next(self.batches)


def _copy(batch: Batch) -> Batch:
    return Batch(batch.rgb.clone(), batch.thermal.clone())
