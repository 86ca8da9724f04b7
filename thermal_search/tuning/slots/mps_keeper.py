"""The actors that keep NVIDIA MPS running on the machines of a search."""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from thermal_search.tuning.slots.config import SlotPlacement
from thermal_search.tuning.slots.mps import MpsDaemon, MpsState

START_TIMEOUT_S = 90.0


@ray.remote(num_cpus=0)
class _NodeDaemon:
    """The daemon of one machine; it ends with this actor."""

    def __init__(self) -> None:
        self.daemon = MpsDaemon()

    def state(self) -> MpsState:
        return self.daemon.state


@ray.remote(num_cpus=0)
class _Keeper:
    """Starts the daemon of a machine when its first worker asks, so that machines which join later
    have one too. What it starts ends with it, and it ends with the process that searches."""

    def __init__(self) -> None:
        self.daemons: dict[str, Any] = {}

    def state_on(self, node: str) -> MpsState:
        if node not in self.daemons:
            there = NodeAffinitySchedulingStrategy(node, soft=False)
            self.daemons[node] = _NodeDaemon.options(scheduling_strategy=there).remote()
        try:
            return ray.get(self.daemons[node].state.remote(), timeout=START_TIMEOUT_S)
        except RayError as error:
            del self.daemons[node]
            return MpsState(f"its process has ended ({type(error).__name__})")


class SharedGpus:
    """How the workers of one run of a search share GPUs."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.keeper: Any = None
        """None until workers share a GPU."""

    def use(self, placement: SlotPlacement) -> None:
        """Starts MPS where workers share a GPU, and says where that is not possible."""
        if placement.workers_per_gpu == 1 or self.keeper:
            return
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.keeper = _Keeper.options(scheduling_strategy=here).remote()
        with_gpus = [
            node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")
        ]
        states: list[MpsState] = ray.get([self.keeper.state_on.remote(id) for id in with_gpus])
        notes = sorted({state.note for state in states if state.note})
        if notes:
            self.say(
                "Workers that share a GPU compute in turns, which is slower than with NVIDIA MPS: "
                f"{'; '.join(notes)}."
            )
        else:
            self.say("Workers that share a GPU compute at the same time, by NVIDIA MPS.")

    def stop(self) -> None:
        """Ends the daemons that are ours, a few seconds later: with the processes of their actors,
        as if this one had been killed."""
        if self.keeper:
            ray.kill(self.keeper)
            self.keeper = None


@contextmanager
def shared_gpus(say: Callable[[str], None]) -> Generator[SharedGpus]:
    """A context with whose end the daemons of MPS end that were started in it."""
    shared = SharedGpus(say)
    try:
        yield shared
    finally:
        shared.stop()


def join_mps(keeper: Any) -> None:
    """Lets this process use MPS, if its machine has it. Call it before the process uses CUDA.

    Args:
        keeper: of SharedGpus; None if no GPU is shared.
    """
    if keeper:
        node = ray.get_runtime_context().get_node_id()
        with suppress(RayError):  # in turns, then
            state: MpsState = ray.get(keeper.state_on.remote(node), timeout=START_TIMEOUT_S)
            os.environ.update(state.environment)
