"""How many trials share each GPU of a search, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean

from thermal_search.tuning.budgets import Calibration, Speed
from thermal_search.tuning.calibrate import calibrate
from thermal_search.tuning.nodes import present
from thermal_search.tuning.placement import CPU_FRACTION_FOR_SLOTS, Node, place_slots
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.settings import MAX_TRIALS_PER_GPU
from thermal_search.tuning.slots.config import SlotPlacement
from thermal_search.tuning.slots.mps_keeper import SharedGpus

MOST = 8
"""More are never chosen: a step is then long enough beside what starts it."""

MEMORY_MARGIN = 1.5
"""Memory of a trial, as a multiple of what its architecture takes at the published point: a search
tries larger batches and networks too. What takes even more is trained alone at the end."""

MEMORY_BESIDE_TRAINING = 7 * 2**28
"""Bytes of CUDA's context and of the evaluation's network (1.75 GiB), on the GPU."""

USABLE_MEMORY = 0.95
"""The fraction of a GPU's memory that is divided."""

HOST_MEMORY = 3 * 2**30
"""Bytes of the machine's memory that a worker takes which has imported torch and uses CUDA."""

LEAST_GAIN = 1.1
"""Images a second of all trials on a GPU, as a multiple of one trial's, from which sharing it pays:
each trial is then slower, and the sampler knows fewer results when it proposes the next."""

GIB = 2**30


@dataclass(frozen=True)
class Sharing:
    """How many trials share a GPU."""

    trials: int
    why: str
    """A clause for people: why so many, and no more."""


@dataclass(frozen=True)
class Shared:
    """What was decided on the machines of a search."""

    placement: SlotPlacement
    why: str = ""
    """A sentence for people; empty if no GPU is shared and no one asked for it."""

    measured: tuple[Calibration, int] | None = None
    """The calibration of these slots and the bytes of memory of each one's device, if they were
    measured in order to decide it."""


def share_gpus(
    plan: SearchPlan,
    size: int,
    placement: SlotPlacement,
    gpus: SharedGpus,
    say: Callable[[str], None],
) -> Shared:
    """Decides how many trials share each GPU, and starts MPS if several do.

    Args:
        size: of the images, in pixels.
        placement: of the plan; with --trials-per-gpu auto, with whole GPUs.

    Raises SearchError if the machines must be measured and cannot be.
    """
    if plan.trials_per_gpu != "auto":
        gpus.use(placement)
        count = placement.workers_per_gpu if plan.workers == 1 else 1
        return Shared(placement, f"{_count(count)}, as asked." if count > 1 else "")
    if "GPU" not in placement.resources_per_worker:
        return Shared(placement, "No machine has a GPU, so no trials share one.")
    say("Measuring how many trials fit each GPU, for at most four minutes.")
    alone, device_bytes = calibrate(plan, size, placement)
    nodes = present()
    sharing = most_that_fit(plan, alone, device_bytes, nodes)
    if sharing.trials == 1:
        return Shared(placement, _sentence(sharing), (alone, device_bytes))
    most = place_slots(plan.replace(trials_per_gpu=sharing.trials), nodes)
    gpus.use(most)
    together, share_bytes = calibrate(plan, size, most, gpus.keeper)
    chosen = as_many_as_gain(sharing, gain_of(alone, together, sharing.trials))
    if chosen.trials == sharing.trials:
        return Shared(most, _sentence(chosen), (together, share_bytes))
    shared = place_slots(plan.replace(trials_per_gpu=chosen.trials), nodes)
    slowdown = max(chosen.trials / gain_of(alone, together, sharing.trials), 1.0)
    return Shared(
        shared,
        _sentence(chosen),
        (_slower(alone, slowdown), int(device_bytes * shared.gpu_share)),
    )


def most_that_fit(
    plan: SearchPlan, alone: Calibration, device_bytes: int, nodes: Sequence[Node]
) -> Sharing:
    """The most trials that may share a GPU, by memory, CPUs and the number of trials.

    Args:
        alone: measured with a GPU for each trial.
        device_bytes: the memory of a GPU.
    """
    if alone.device == "CPU":
        return Sharing(1, "no GPU could be measured")
    with_gpus = [node for node in nodes if node.get("GPU")]
    needed = max(speed.memory_bytes for speed in alone.speeds.values())
    fit = USABLE_MEMORY * device_bytes / (needed * MEMORY_MARGIN + MEMORY_BESIDE_TRAINING)
    cpus = min(CPU_FRACTION_FOR_SLOTS * node.get("CPU", 0.0) / node["GPU"] for node in with_gpus)
    host = min(node.get("memory", float("inf")) / node["GPU"] for node in with_gpus)
    total = sum(node["GPU"] for node in with_gpus)
    limits = [
        Sharing(MOST, "more gain nothing"),
        Sharing(
            int(fit),
            f"a trial needs up to {needed / GIB:.1f} GiB at the published points, and a GPU has "
            f"{device_bytes / GIB:.0f} GiB",
        ),
        Sharing(int(cpus), "each needs a CPU"),
        Sharing(
            int(min(host / HOST_MEMORY, MAX_TRIALS_PER_GPU)),
            "each needs 3 GiB of the machine's memory",
        ),
        Sharing(ceil(plan.trials / total), "the search has no more trials"),
    ]
    least = min(limits, key=lambda limit: limit.trials)
    return Sharing(max(least.trials, 1), least.why)


def gain_of(alone: Calibration, together: Calibration, trials: int) -> float:
    """Images a second of so many trials on a GPU, as a multiple of one trial's: the mean over the
    architectures that were measured both alone and together."""
    ratios = [
        speed.seconds_per_operation / together.speeds[name].seconds_per_operation
        for name, speed in alone.speeds.items()
        if name in together.speeds
    ]
    return trials * fmean(ratios) if ratios else 1.0


def as_many_as_gain(most: Sharing, gain: float) -> Sharing:
    """No more trials than reach what `most.trials` gain together.

    So many cannot train more images a second than each could alone, so that a gain of 2.6 takes at
    least 3; one more allows for sharing that is not perfect.
    """
    if gain < LEAST_GAIN:
        return Sharing(1, f"{most.trials} train {gain:.1f} times as many images a second as one")
    trials = min(most.trials, ceil(gain) + 1)
    why = f"{most.trials} train {gain:.1f} times as many images a second as one"
    return Sharing(trials, f"{why}, and {most.why}" if trials == most.trials else why)


def _slower(alone: Calibration, times: float) -> Calibration:
    def slower(speed: Speed) -> Speed:
        return speed.model_copy(
            update={
                "seconds_per_operation": speed.seconds_per_operation * times,
                "seconds_per_image": speed.seconds_per_image * times,
            }
        )

    speeds = {name: slower(speed) for name, speed in alone.speeds.items()}
    return alone.model_copy(update={"speeds": speeds})


def _sentence(sharing: Sharing) -> str:
    return f"{_count(sharing.trials)}: {sharing.why}."


def _count(trials: int) -> str:
    return f"{trials} trials share each GPU" if trials > 1 else "Each trial has a GPU of its own"
