"""Measures how fast the machines of a search are, with the resources of its slots."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from statistics import fmean
from typing import Any

import ray

from thermal_search.architectures import from_file
from thermal_search.architectures.from_file import SourceFile
from thermal_search.errors import SearchError
from thermal_search.tuning.budgets import REFERENCE, Budgets, Calibration, Speed
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.slots.config import SlotPlacement
from thermal_search.tuning.slots.mps_keeper import join_mps
from thermal_search.tuning.space import ConditionalSpace

SECONDS = 120.0
"""The longest that a calibration takes."""

START_SECONDS = 20.0
"""Of these for the start of the processes, which import torch."""


NEIGHBOR_SECONDS = 20.0
"""How long an architecture is trained beside others on a GPU: their processes do not start at
quite the same time."""


@ray.remote(max_retries=0)
def _measure(own: tuple[SourceFile, ...], mps: Any, architecture: str, **setting: Any) -> Any:
    """A Measurement (see `speed.measure`), or the sentence that says why there is none.

    Args:
        own: the files of architectures that are not the package's.
        mps: as `join_mps` takes it.
    """
    from thermal_search.training.speed import measure

    join_mps(mps)
    try:
        for file in own:
            from_file.register(file)
        return measure(architecture, **setting)
    except Exception as error:
        return _line(error)


def calibrate(
    plan: SearchPlan, size: int, placement: SlotPlacement, mps: Any = None
) -> tuple[Calibration, int]:
    """Trains the published point of every architecture for a few steps on images of `size` pixels,
    and of the reference for the unit of compute; within SECONDS.

    Slots that share a GPU are measured while all of them train.

    Args:
        mps: the actor that knows how workers share a GPU; None if they share none.

    Returns the calibration, with compute 0, and the memory of the device that one slot has, in
    bytes. Raises SearchError if nothing could be measured.
    """
    points = _points(plan)
    # The reference first: without it, the unit of compute has no time.
    waiting = sorted(points, key=lambda name: name != REFERENCE)
    has_neighbors = placement.workers_per_gpu > 1
    rounds = -(-len(points) // placement.slots)
    if has_neighbors:
        waiting = list(islice(cycle(waiting), rounds * placement.slots))
    seconds = (SECONDS - START_SECONDS) * placement.slots / len(waiting)
    if has_neighbors:
        seconds = min(seconds, NEIGHBOR_SECONDS)
    gpus = placement.resources_per_worker.get("GPU", 0.0)
    remote: Any = _measure.options(num_cpus=placement.resources_per_worker["CPU"], num_gpus=gpus)
    own = tuple(from_file.registered[name] for name in plan.own_architectures)
    ends = time.monotonic() + SECONDS
    running: dict[Any, str] = {}
    measured: defaultdict[str, list[Any]] = defaultdict(list)
    failures: dict[str, str] = {}
    while (waiting or running) and time.monotonic() < ends:
        while waiting and len(running) < placement.slots:
            name = waiting.pop(0)
            reference = remote.remote(
                own,
                mps,
                name,
                parameters=points[name],
                size=size,
                seconds=min(seconds, ends - time.monotonic()),
                threads=placement.threads_per_worker,
                precision=plan.precision,
                use_gpu=gpus > 0,
                gpu_share=placement.gpu_share,
                has_neighbors=has_neighbors,
            )
            running[reference] = name
        done, _ = ray.wait(list(running), timeout=max(ends - time.monotonic(), 0.0))
        for reference in done:
            name = running.pop(reference)
            try:
                result = ray.get(reference)
            except Exception as error:  # its process died
                result = _line(error)
            if isinstance(result, str):
                failures[name] = result
            else:
                measured[name].append(result)
    for reference in running:
        ray.cancel(reference, force=True)
    for name in [*running.values(), *waiting]:
        failures.setdefault(name, f"it was not measured within {SECONDS:.0f} s")
    if not measured:
        raise SearchError(
            f"The machines could not be measured ({next(iter(failures.values()))}): pass "
            "--images, or --compute without --hours, which need no measurement."
        )
    first = next(iter(measured.values()))[0]
    calibration = Calibration(
        size=size,
        compute=0.0,
        device=first.device,
        speeds={name: _speed(results) for name, results in measured.items()},
        failures={name: why for name, why in failures.items() if name not in measured},
    )
    # Slots that share a GPU share its memory.
    return calibration, int(first.device_bytes * placement.gpu_share)


def _speed(results: Sequence[Any]) -> Speed:
    """Of the measurements of one architecture."""
    return Speed(
        seconds_per_operation=fmean(result.seconds_per_operation for result in results),
        seconds_per_image=fmean(result.seconds_per_image for result in results),
        memory_bytes=max(result.memory_bytes for result in results),
        batch_size=min(result.batch_size for result in results),
    )


def unit_seconds(calibration: Calibration) -> float:
    """Seconds of training for one unit of compute."""
    return Budgets(calibration.size, 1.0, calibration).unit_seconds


def _points(plan: SearchPlan) -> dict[str, Mapping[str, Any]]:
    """The published points by architecture, the reference's included."""
    space = plan.search_space()
    points = {name: space.published(name).parameters for name in plan.architectures}
    if REFERENCE not in points:
        points[REFERENCE] = ConditionalSpace((REFERENCE,)).published(REFERENCE).parameters
    return points


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    is_memory = "OutOfMemory" in type(error).__name__ or "alloc" in text
    return f"{'out of memory' if is_memory else type(error).__name__}: {text[:200]}"
