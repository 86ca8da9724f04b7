"""How the slots of a search lie on the machines: plain arithmetic over what each machine has."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from thermal_search.errors import SearchError
from thermal_search.tuning.plan import SearchPlan

SHARE_FOR_SLOTS = 0.8
"""Of a machine's CPUs. The rest is for Ray Data and for the searching process itself."""

MOST_SLOTS_WITHOUT_GPU = 4
"""Each slot also costs the memory of its networks."""

Strategy = Literal["PACK", "STRICT_PACK", "SPREAD"]
STRATEGIES: dict[str | None, Strategy] = {None: "PACK", "pack": "STRICT_PACK", "spread": "SPREAD"}

Backend = Literal["nccl", "gloo"]

Node = Mapping[str, float]
"""What one machine has, by resource, as Ray names them: CPU, GPU, accelerator_type:..."""


@dataclass(frozen=True)
class SlotPlacement:
    slots: int
    resources_per_worker: dict[str, float]
    threads_per_worker: int
    strategy: Strategy
    """How Ray places the workers of one slot."""

    backend: Backend
    """What carries gradients between the workers of one slot."""


def gpus_per_worker(plan: SearchPlan, nodes: Sequence[Node]) -> float:
    """As asked for; or one, where any machine has a GPU."""
    if plan.gpus_per_worker is not None:
        return plan.gpus_per_worker
    return 1.0 if any(node.get("GPU", 0.0) for node in nodes) else 0.0


def place_slots(plan: SearchPlan, nodes: Sequence[Node]) -> SlotPlacement:
    """Fits the plan's slots onto the machines; raises SearchError where they do not fit.

    Every slot keeps its resources for the whole search, so all of them must fit at once: one that
    waited for another would hold its trial until the search is over. Totals do not tell: three
    machines with one GPU each hold no slot of two workers that must stay together.
    """
    gpus = gpus_per_worker(plan, nodes)
    together = plan.placement == "pack"
    if gpus:
        slots = plan.slots or _slots_that_fit(nodes, plan.workers, gpus, 0.0, together)
    else:
        cores = int(sum(node.get("CPU", 0.0) for node in nodes))
        slots = plan.slots or max(1, min(cores // plan.workers, MOST_SLOTS_WITHOUT_GPU))
    slots = min(slots, plan.trials)
    share = _largest_share(nodes, slots, plan.workers, gpus, together) if slots else 0.0
    if not share:
        raise SearchError(_does_not_fit(plan, nodes, max(slots, 1), gpus))
    threads = max(1, int(share / SHARE_FOR_SLOTS + 1e-9))
    # Ray takes fractions below one CPU and whole numbers above.
    cpus = float(int(share)) if share >= 1 else max(math.floor(share * 1e4) / 1e4, 0.001)
    resources = {"CPU": cpus} | ({"GPU": gpus} if gpus else {})
    # NCCL wants a GPU of its own for each worker, and one that is there: Ray also counts GPUs that
    # no machine has (`ray start --num-gpus`), but knows the type only of real ones.
    are_real = any(name.startswith("accelerator_type:") for node in nodes for name in node)
    backend: Backend = "nccl" if gpus >= 1 and plan.workers > 1 and are_real else "gloo"
    return SlotPlacement(slots, resources, threads, STRATEGIES[plan.placement], backend)


def _largest_share(
    nodes: Sequence[Node], slots: int, workers: int, gpus: float, together: bool
) -> float:
    """The most CPUs a worker can have so that all slots fit; 0 where they never do."""
    shares = {
        SHARE_FOR_SLOTS * node.get("CPU", 0.0) / count
        for node in nodes
        for count in range(1, slots * workers + 1)
    }
    fitting = (
        share
        for share in sorted(shares, reverse=True)
        if share and _slots_that_fit(nodes, workers, gpus, share, together) >= slots
    )
    return next(fitting, 0.0)


def _slots_that_fit(
    nodes: Sequence[Node], workers: int, gpus: float, cpus: float, together: bool
) -> int:
    """Slots whose workers take so much each. Workers are all alike, so counting them is enough."""
    counts = [_workers_that_fit(node, gpus, cpus) for node in nodes]
    if together:
        return sum(count // workers for count in counts)
    return sum(counts) // workers


def _workers_that_fit(node: Node, gpus: float, cpus: float) -> int:
    limits: list[int] = []
    if gpus:
        # Ray gives a fraction from one GPU, never from two.
        packed = math.floor(1 / gpus + 1e-9) if gpus < 1 else 1 / gpus
        limits.append(int(node.get("GPU", 0.0) * packed + 1e-9))
    if cpus:
        limits.append(int(node.get("CPU", 0.0) * SHARE_FOR_SLOTS / cpus + 1e-9))
    return min(limits)


def _does_not_fit(plan: SearchPlan, nodes: Sequence[Node], slots: int, gpus: float) -> str:
    kind, each = ("GPU", gpus) if gpus else ("CPU", 0.0)
    have = ", ".join(f"{count:g}" for count in sorted(node.get(kind, 0.0) for node in nodes))
    need = f" with {each:g} GPU each" if gpus else ""
    where = " on one machine" if plan.placement == "pack" else ""
    advice = "--slots, --workers or --gpus-per-worker" if gpus else "--slots or --workers"
    return (
        f"{slots} slot(s) of {plan.workers} worker(s){where}{need} do not fit: the machines have "
        f"{have} {kind}s. Lower {advice}"
        + (", or leave --placement out." if plan.placement == "pack" else ".")
    )
