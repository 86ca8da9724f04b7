"""What the workers of a trial use of their machines: a few numbers for each evaluation."""

import os
import resource
import sys
import time

import torch

from thermal_search.distributed.worker_group import WorkerGroup

MEGABYTE = 1e6
STATUS_FILE = "/proc/self/statm"


class SystemMeter:
    """Measures from one evaluation to the next, over all workers of a trial."""

    def __init__(self, group: WorkerGroup, device: torch.device) -> None:
        self.group, self.device = group, device
        self.reset()

    def reset(self) -> None:
        """Begins to measure."""
        self.started, self.cpu_before = time.monotonic(), time.process_time()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def read(self) -> dict[str, float]:
        """What the workers have used since `reset`. A collective: every worker calls it.

        `worker_cpu_percent`: 100 is one core, the sum over the workers. `worker_memory_megabytes`:
        their sum. `gpu_memory_megabytes`: the most that tensors took on each GPU, the mean.
        `gpu_utilization_percent`: the mean, now, if NVIDIA's library for it is installed.
        """
        cpu = (time.process_time() - self.cpu_before) / max(time.monotonic() - self.started, 1e-6)
        local = {"worker_cpu_percent": 100 * cpu, "worker_memory_megabytes": _memory() / MEGABYTE}
        summed = len(local)
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            local["gpu_memory_megabytes"] = peak / MEGABYTE
            # Of every worker or of none, because the sum below needs equal lengths: -1 is unknown.
            local["gpu_utilization_percent"] = _gpu_utilization(self.device)
        values = self.group.sum(torch.tensor([*local.values()], dtype=torch.float64))
        values[summed:] /= self.group.size
        result = dict(zip(local, values.tolist(), strict=True))
        return {name: round(value, 1) for name, value in result.items() if value >= 0}


def _memory() -> float:
    """Bytes of memory that this process occupies now; on other systems than Linux, the most that it
    has occupied."""
    try:
        with open(STATUS_FILE, "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _gpu_utilization(device: torch.device) -> float:
    try:
        return float(torch.cuda.utilization(device))
    except (ImportError, RuntimeError):
        return -1.0
