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
from thermal_search.images import Batch
from thermal_search.training.group import Group
from thermal_search.training.step import Seat, train_step

PLAYED_BEFORE = 3
"""Steps of a pattern that are played before one is recorded: the libraries choose their algorithms
and the optimizers make their state."""

MOST_RECORDINGS = 12
"""The one that was not replayed for longest makes room for the next."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    batches: list[Batch]
    """What it draws: to be filled before it is replayed."""

    losses: dict[str, Tensor]
    """What it returns, written anew by each replay."""


class Steps:
    """Plays a translator's training steps, one after another, as fast as the device allows.

    Recorded are steps on a GPU, of one worker or of several that agree by NCCL.
    """

    def __init__(
        self,
        translator: Translator,
        seats: Mapping[str, Seat],
        batches: Iterator[Batch],
        *,
        group: Group,
        autocast: contextlib.AbstractContextManager[Any],
        device: torch.device,
    ) -> None:
        self.translator, self.seats, self.batches = translator, seats, batches
        self.group, self.autocast = group, autocast
        self.device = device
        is_gpu = device.type == "cuda"
        self.records = is_gpu and (group.size == 1 or dist.get_backend() == "nccl")
        self.stream = torch.cuda.Stream(device) if is_gpu else None
        self.forget()

    def forget(self) -> None:
        """Drops all recordings: to be called when an optimizer's state or a network is replaced."""
        self.recordings: dict[Hashable, _Recording] = {}
        self.played: dict[Hashable, tuple[int, int]] = {}
        """How often a pattern was played unrecorded, and how many batches it draws."""

        self.pool: Any = None

    def play(self) -> dict[str, Tensor]:
        """Plays the step that the translator has begun, and returns what `train_step` does.

        What a replayed step returns is written over by the next one.
        """
        if self.stream is None:
            return self._train(self.batches)
        # All on one stream, for gradients gather on the one of their first use.
        outer = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outer)
        with torch.cuda.stream(self.stream):
            losses = self._play_or_replay() if self.records else self._train(self.batches)
        outer.wait_stream(self.stream)
        return losses

    def _play_or_replay(self) -> dict[str, Tensor]:
        players = (seat.pattern for seat in self.seats.values())
        pattern = (self.translator.pattern(), *players)
        if recording := self.recordings.pop(pattern, None):
            self.recordings[pattern] = recording  # the last that makes room
            return self._replay(recording)
        played, drawn = self.played.get(pattern, (0, 0))
        if played < PLAYED_BEFORE:
            counted = _Counted(self.batches)
            losses = self._train(counted)
            self.played[pattern] = played + 1, counted.count
            return losses
        return self._record(pattern, [_copy(next(self.batches)) for _ in range(drawn)])

    def _replay(self, recording: _Recording) -> dict[str, Tensor]:
        with torch.no_grad():
            for place in recording.batches:
                batch = next(self.batches)
                place.rgb.copy_(batch.rgb, non_blocking=True)
                place.thermal.copy_(batch.thermal, non_blocking=True)
        recording.graph.replay()
        return recording.losses

    def _record(self, pattern: Hashable, batches: list[Batch]) -> dict[str, Tensor]:
        """Records a step, and plays it."""
        graph = torch.cuda.CUDAGraph()
        try:
            # The threads of others may use the device meanwhile.
            with torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"):
                losses = self._train(iter(batches))
        except Exception as error:
            # Out of memory, perhaps: a recording keeps what a played step gives back. FellowLost
            # too, though nobody is: what is recorded is not yet asked of the others.
            self.records = False
            self.forget()
            self._leave_recording()
            name = type(self.translator).__name__
            logger.warning("%s is played without recording: %s", name, str(error).split("\n")[0])
            return self._train(iter(batches))
        self.pool = self.pool or graph.pool()
        if len(self.recordings) == MOST_RECORDINGS:
            del self.recordings[next(iter(self.recordings))]
        self.recordings[pattern] = _Recording(graph, batches, losses)
        graph.replay()
        return losses

    def _leave_recording(self) -> None:
        """torch's random generator believes in a recording that failed until one succeeds."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            torch.rand(1, device=self.device)

    def _train(self, batches: Iterator[Batch]) -> dict[str, Tensor]:
        return train_step(
            self.translator, self.seats, batches, group=self.group, autocast=self.autocast
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
