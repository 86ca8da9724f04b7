"""The workers that train one trial detect_lost_workers. One worker alone is a group too."""

import contextlib
import os
import sys
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def keep_to_loopback() -> None:
    """For workers of one machine, before they meet: no other machine shall reach them."""
    for library in ("GLOO", "NCCL"):
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", loopback)


class WorkerLost(Exception):
    """Another worker of the group is gone, and this one has learned it from a collective.

    No fault of the trial: Ray Train starts the group again, which goes on where it was evaluated.
    """


@contextlib.contextmanager
def detect_lost_workers() -> Generator[None]:
    """Around collectives: WorkerLost in the place of what gloo and NCCL raise."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # NCCL's own errors are RuntimeErrors too
        raise WorkerLost(str(error)) from error


class WorkerGroup:
    """This worker's place among its fellows, and what they agree on.

    Gradients travel on the default process group (NCCL on GPUs); decisions and float64 sums on a
    second one (gloo), which needs no device and does not disturb the first. All of it raises
    WorkerLost where one of them is gone.
    """

    def __init__(self) -> None:
        self.size = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.control: dist.ProcessGroup | None = None
        if self.size > 1:
            with detect_lost_workers():
                control = dist.new_group(backend="gloo")
            assert isinstance(control, dist.ProcessGroup)
            self.control = control

    @property
    def is_rank_zero(self) -> bool:
        return self.rank == 0

    def broadcast_object(self, question: Callable[[], T]) -> T:
        """The first worker's answer to `question`, on every worker. Only it asks."""
        answer: list[Any] = [question() if self.is_rank_zero else None]
        if self.size > 1:
            with detect_lost_workers():
                dist.broadcast_object_list(answer, src=0, group=self.control)
        return answer[0]

    def barrier(self) -> None:
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
        """Averages the gradients in place, and `terms` with them, by one flat all-reduce.

        No DistributedDataParallel: its hooks fail on networks that grow and on backward passes
        that leave a parameter out. The loss terms ride along so that every worker sees the same
        ones, and all of them stop when one diverges.
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
        """Gives every worker the first one's parameters and buffers."""
        if self.size > 1:
            with detect_lost_workers():
                for tensor in [*network.parameters(), *network.buffers()]:
                    dist.broadcast(tensor.data, src=0)

    def average_running_stats(self, network: nn.Module) -> None:
        """Averages what the workers have measured, each on its own images, so that all evaluator one
        generator: the buffers named `running_...`, as batch normalization names its own."""
        if self.size == 1:
            return
        for name, measured in network.named_buffers():
            if name.rpartition(".")[2].startswith("running_"):
                with detect_lost_workers():
                    dist.all_reduce(measured)
                measured /= self.size
