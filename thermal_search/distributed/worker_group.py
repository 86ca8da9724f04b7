"""The workers that train one trial together, and their collectives. One worker is a group too."""

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")

RUNNING_STATS_PREFIX = "running_"
"""Buffers whose name starts so are averaged over the workers: each is a mean that a worker measured
on its own batches, such as batch normalization's `running_mean`. Other buffers are left alone."""


def keep_to_loopback() -> None:
    """For workers of one machine, before they connect: no other machine can reach them."""
    for library in ("GLOO", "NCCL"):
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)


class WorkerLost(Exception):
    """Another worker of the group is gone, and a collective of this one failed.

    This is no fault of the trial: Ray Train restarts the group, and the trial resumes from its last
    evaluation.
    """


@contextlib.contextmanager
def detect_lost_workers() -> Generator[None]:
    """Around collectives: raises WorkerLost instead of the errors of gloo and NCCL."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # NCCL's own errors are RuntimeErrors too
        raise WorkerLost(str(error)) from error


class WorkerGroup:
    """This worker's rank and its collectives with the other workers of a trial.

    Gradients are reduced on the default process group (NCCL on GPUs); objects and float64 sums on a
    second one (gloo), which needs no device and does not disturb the first. All collectives raise
    WorkerLost if another worker is gone.
    """

    def __init__(self) -> None:
        self.size = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.control: dist.ProcessGroup | None = None
        """The gloo process group; None for a single worker."""

        if self.size > 1:
            with detect_lost_workers():
                control = dist.new_group(backend="gloo")
            assert isinstance(control, dist.ProcessGroup)
            self.control = control

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def broadcast_object(self, compute: Callable[[], T]) -> T:
        """What `compute` returns on rank 0, on every worker. Only rank 0 calls it."""
        objects: list[Any] = [compute() if self.is_rank_zero else None]
        if self.size > 1:
            with detect_lost_workers():
                dist.broadcast_object_list(objects, src=0, group=self.control)
        return objects[0]

    def barrier(self) -> None:
        """Waits until every worker has called it."""
        if self.size > 1:
            with detect_lost_workers():
                dist.barrier(group=self.control)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a CPU tensor over the workers, in place."""
        if self.size > 1:
            with detect_lost_workers():
                dist.all_reduce(tensor, group=self.control)
        return tensor

    def average_gradients(self, parameters: Sequence[nn.Parameter], terms: Tensor) -> Tensor:
        """Averages the gradients over the workers in place; returns the averaged loss terms.

        Both in one flat all-reduce, without DistributedDataParallel: its hooks fail on networks
        that grow and on backward passes that leave a parameter out. The loss terms are included so
        that every worker has the same ones, and all of them stop when one diverges.
        """
        if self.size == 1:
            return terms
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [terms])
        with detect_lost_workers():
            dist.all_reduce(flat)
        flat /= self.size
        pieces = flat.split([gradient.numel() for gradient in gradients] + [terms.numel()])
        for gradient, piece in zip(gradients, pieces[:-1], strict=True):
            gradient.copy_(piece.view_as(gradient))
        return pieces[-1]

    def broadcast_parameters(self, network: nn.Module) -> None:
        """Copies rank 0's parameters and buffers to every worker."""
        if self.size > 1:
            with detect_lost_workers():
                for tensor in [*network.parameters(), *network.buffers()]:
                    dist.broadcast(tensor.data, src=0)

    def average_running_stats(self, network: nn.Module) -> None:
        """Averages the `running_...` buffers over the workers, in place, so that all of them
        evaluate the same generator (see `RUNNING_STATS_PREFIX`)."""
        if self.size == 1:
            return
        for name, buffer in network.named_buffers():
            if name.rpartition(".")[2].startswith(RUNNING_STATS_PREFIX):
                with detect_lost_workers():
                    dist.all_reduce(buffer)
                buffer /= self.size
