"""How fast a setting trains on this machine, and how much memory it takes: a few real steps."""

import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thermal_search.architectures import ARCHITECTURES
from thermal_search.choices import Precision
from thermal_search.data.frames import EvaluationPairs, Frames, WorkerFrames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import SearchError, TrialDiverged
from thermal_search.pair_alignment import PairAlignment
from thermal_search.storage import Location
from thermal_search.training.cuda_graphs import WARMUP_STEPS
from thermal_search.training.hardware import limit_memory
from thermal_search.training.operations import cost_of
from thermal_search.training.trial import Trial
from thermal_search.training.trial_plan import TrialPlan

FRAMES = 64
"""Random images to train on: what they show does not change the time."""

FIRST_BATCH = 2
"""Images of the first batch on a CPU, where a published batch may take minutes."""

GROWTH = 4
"""How many times as large the next batch is that is tried."""

MIN_STEPS = 2
"""Timed steps after those that warm up."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What was measured of a setting."""

    seconds_per_operation: float
    seconds_per_image: float
    """The mean over a whole budget."""

    memory_bytes: int
    batch_size: int
    """Images of the batch that was measured."""

    device: str
    device_bytes: int
    """The memory of the GPU, or of this machine by its threads."""


@dataclass(frozen=True)
class _Steps:
    seconds: float
    images: int
    held: int
    peak: int
    """Bytes that training holds between steps, and at most within one."""


def measure(
    architecture: str,
    parameters: Mapping[str, Any],
    *,
    size: int,
    seconds: float,
    threads: int,
    precision: Precision,
    use_gpu: bool,
    gpu_share: float = 1.0,
    has_neighbors: bool = False,
) -> Measurement:
    """Trains a setting for about so many seconds, and at least one step.

    Args:
        gpu_share: the part of the GPU that this process may use the memory of, above 0 .. 1.
        has_neighbors: whether others are measured on the same GPU at the same time. Then all of
            the time is trained, and its second half is timed, when the others train as well.

    Raises SearchError for unknown parameters, and torch's error if its memory does not suffice.
    """
    torch.set_num_threads(threads)
    device = torch.device("cuda" if use_gpu and torch.cuda.is_available() else "cpu")
    limit_memory(device, gpu_share)
    ends = time.monotonic() + seconds
    config = ARCHITECTURES[architecture].Config(size=size, **parameters)
    full: int = config.batch_size
    batch = full if device.type == "cuda" else min(full, FIRST_BATCH)
    while True:
        setting = {**parameters, "batch_size": batch}
        steps = None
        try:
            steps = _train(architecture, setting, size, ends, device, precision, has_neighbors)
        except (SearchError, ValueError):
            if batch == full:
                raise  # else the setting needs a larger batch
        larger = min(batch * GROWTH, full)
        if steps and (batch == full or not _fits(steps, larger / batch, ends)):
            break
        batch = larger
    cost = cost_of(architecture, size, setting)
    per_operation = steps.seconds / (cost.at_full_size * steps.images)
    return Measurement(
        seconds_per_operation=per_operation,
        seconds_per_image=cost_of(architecture, size, parameters).per_image * per_operation,
        memory_bytes=int(steps.held + (steps.peak - steps.held) * full / batch),
        batch_size=steps.images,
        device=torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        device_bytes=_device_bytes(device, threads),
    )


def _fits(steps: _Steps, times: float, ends: float) -> bool:
    """Whether steps on a batch so many times as large fit the time left."""
    return time.monotonic() + steps.seconds * times * (MIN_STEPS + 1) < ends


def _train(
    architecture: str,
    parameters: Mapping[str, Any],
    size: int,
    ends: float,
    device: torch.device,
    precision: Precision,
    has_neighbors: bool,
) -> _Steps:
    """The mean step at full size."""
    with tempfile.TemporaryDirectory(prefix="thermal-search-") as scratch:
        plan = TrialPlan(
            id="",
            architecture=architecture,
            parameters=parameters,
            folder=Location.of(Path(scratch)),
            images=1,
            evaluate_every=1,
            precision=precision,
        )
        trial = Trial(plan, random_frames(size), None, WorkerGroup(), device)
    trial.translator.train()
    trial.progress.images = 1  # growth has finished
    _reset_peak(device)
    seconds: list[float] = []
    images = 0
    warmups = WARMUP_STEPS + 1 if device.type == "cuda" else 1
    while len(seconds) < warmups + MIN_STEPS or time.monotonic() < ends:
        if seconds and time.monotonic() + seconds[-1] > ends:
            break
        began = time.perf_counter()
        before = trial.progress.images
        try:
            trial.step()
        except TrialDiverged:
            break
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        images = trial.progress.images - before
        trial.progress.images = 1
        if len(seconds) >= 10 * (warmups + MIN_STEPS) and not has_neighbors:
            break
    if not seconds:
        raise SearchError(f"{architecture} diverges in its first step")
    untimed = max(warmups, len(seconds) // 2) if has_neighbors else warmups
    timed = seconds[untimed:] or seconds[-1:]
    held, peak = _memory(device)
    return _Steps(sum(timed) / len(timed), images, held, peak)


def random_frames(size: int) -> WorkerFrames:
    """FRAMES pairs to train on, and none to evaluate on."""
    random = np.random.default_rng(0)

    def frames(channels: int, count: int = FRAMES) -> Frames:
        pixels = random.integers(0, 256, (count, channels, size, size), np.uint8)
        return Frames([pixels], size=size, channels=channels)

    pairs = frames(3), frames(1)
    empty = EvaluationPairs(frames(3, 0), frames(1, 0), 0)
    alignment = PairAlignment(method="none", layout="")
    return WorkerFrames(size, pairs, pairs, empty, empty, alignment)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError):  # not Linux: the peak is then that of the process
        Path("/proc/self/clear_refs").write_text("5")


def _memory(device: torch.device) -> tuple[int, int]:
    """Bytes in use now, and at most since `_reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_reserved()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return peak, peak
    fields = dict(line.split(":", 1) for line in lines)
    held, peak = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return held, peak


def _device_bytes(device: torch.device, threads: int) -> int:
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[1]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(machine * min(threads / (os.cpu_count() or 1), 1.0))
