"""The placement of a search's slots on the nodes of a cluster, from each node's resources."""

from collections.abc import Mapping, Sequence

from thermal_search.errors import SearchError
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.slots.config import Backend, SlotPlacement, Strategy

CPU_FRACTION_FOR_SLOTS = 0.8
"""The fraction of a node's CPUs that slots may use. Ray Data and the driver use the rest."""

MAX_SLOTS_WITHOUT_GPU = 4
"""Each slot also needs memory for its networks."""

STRATEGIES: dict[str | None, Strategy] = {None: "PACK", "pack": "STRICT_PACK", "spread": "SPREAD"}

Node = Mapping[str, float]
"""The resources of one node, by Ray's names: CPU, GPU, accelerator_type:..."""


def gpus_per_worker(plan: SearchPlan, nodes: Sequence[Node]) -> float:
    """The plan's number; without one, 1 if any node has a GPU and 0 otherwise."""
    if (requested := plan.requested_gpus) is not None:
        return requested
    return 1.0 if any(node.get("GPU", 0.0) for node in nodes) else 0.0


def place_slots(plan: SearchPlan, nodes: Sequence[Node]) -> SlotPlacement:
    """Fits the plan's slots onto the nodes; raises SearchError if they do not fit.

    Every slot reserves its resources for the whole search, so all of them must fit at the same
    time: a slot that waited for another would hold its trial until the search is over. Totals over
    the cluster do not decide it: three nodes with one GPU each have no room for a slot of two
    workers that must share a node.
    """
    gpus = gpus_per_worker(plan, nodes)
    one_node = plan.placement == "pack"
    if gpus:
        slots = plan.slots or _slots_that_fit(nodes, plan.workers, gpus, 0.0, one_node)
    else:
        cores = int(sum(node.get("CPU", 0.0) for node in nodes))
        slots = plan.slots or max(1, min(cores // plan.workers, MAX_SLOTS_WITHOUT_GPU))
    slots = min(slots, plan.trials)
    cpus = _max_cpus_per_worker(nodes, slots, plan.workers, gpus, one_node) if slots else 0.0
    if not cpus:
        raise SearchError(_does_not_fit(plan, nodes, max(slots, 1), gpus))
    # Never more threads than reserved CPUs: OpenMP's threads wait for the slowest, and one that
    # shares its core with the driver makes a step of a small network eight times as long.
    threads = max(1, int(cpus + 1e-9))
    # Ray accepts fractions below one CPU, and whole numbers above.
    reserved = float(int(cpus)) if cpus >= 1 else max(int(cpus * 1e4) / 1e4, 0.001)
    resources = {"CPU": reserved} | ({"GPU": gpus} if gpus else {})
    # NCCL needs a GPU of its own for each worker, and a real one: Ray also counts GPUs that no
    # node has (`ray start --num-gpus`), but reports an accelerator type for real ones only.
    are_real = any(name.startswith("accelerator_type:") for node in nodes for name in node)
    backend: Backend = "nccl" if gpus >= 1 and plan.workers > 1 and are_real else "gloo"
    return SlotPlacement(slots, resources, threads, STRATEGIES[plan.placement], backend)


def place_alone(plan: SearchPlan, trials: int, nodes: Sequence[Node]) -> SlotPlacement:
    """The placement of so many trials with a whole GPU for each."""
    whole = plan.replace(trials_per_gpu=None, gpus_per_worker=1.0, slots=None, trials=trials)
    return place_slots(whole, nodes)


def _max_cpus_per_worker(
    nodes: Sequence[Node], slots: int, workers: int, gpus: float, one_node: bool
) -> float:
    """The most CPUs a worker can have so that all slots fit; 0 if they never do."""
    candidates = {
        CPU_FRACTION_FOR_SLOTS * node.get("CPU", 0.0) / count
        for node in nodes
        for count in range(1, slots * workers + 1)
    }
    fitting = (
        cpus
        for cpus in sorted(candidates, reverse=True)
        if cpus and _slots_that_fit(nodes, workers, gpus, cpus, one_node) >= slots
    )
    return next(fitting, 0.0)


def _slots_that_fit(
    nodes: Sequence[Node], workers: int, gpus: float, cpus: float, one_node: bool
) -> int:
    """How many slots fit if each worker takes `gpus` and `cpus`; workers are alike."""
    counts = [_workers_that_fit(node, gpus, cpus) for node in nodes]
    if one_node:
        return sum(count // workers for count in counts)
    return sum(counts) // workers


def _workers_that_fit(node: Node, gpus: float, cpus: float) -> int:
    limits: list[int] = []
    if gpus:
        # Ray takes a fraction from one GPU, never from two.
        workers_per_gpu = int(1 / gpus + 1e-9) if gpus < 1 else 1 / gpus
        limits.append(int(node.get("GPU", 0.0) * workers_per_gpu + 1e-9))
    if cpus:
        limits.append(int(node.get("CPU", 0.0) * CPU_FRACTION_FOR_SLOTS / cpus + 1e-9))
    return min(limits)


def _does_not_fit(plan: SearchPlan, nodes: Sequence[Node], slots: int, gpus: float) -> str:
    kind, per_worker = ("GPU", gpus) if gpus else ("CPU", 0.0)
    counts = ", ".join(f"{count:g}" for count in sorted(node.get(kind, 0.0) for node in nodes))
    need = f" with {per_worker:g} GPU each" if gpus else ""
    on_one_node = " on one node" if plan.placement == "pack" else ""
    advice = "--slots, --workers or --gpus-per-worker" if gpus else "--slots or --workers"
    if isinstance(plan.trials_per_gpu, int):
        advice = "--slots, or leave --trials-per-gpu out"
    return (
        f"{slots} slot(s) of {plan.workers} worker(s){on_one_node}{need} do not fit: the nodes "
        f"have {counts} {kind}s. Lower {advice}"
        + (", or leave --placement out." if plan.placement == "pack" else ".")
    )
