"""Images a second of one GPU with several trials on it, without and with NVIDIA MPS.

    python benchmarks/shared_gpu.py [--system pix2pix] [--size 256] [--trials 1 2 4 8] [--seconds 8]

Every trial is a process of its own, as in a search with --trials-per-gpu: the published point,
whole training steps, a share of the GPU's memory. All of them are timed while all train. Without a
GPU the trials share the CPUs, which shows only that it runs. Needs no Ray.
"""

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from thermal_search.tuning.slots.mps import MpsDaemon

START_TIMEOUT_S = 120.0
"""For the slowest of eight processes to import torch and to capture its step."""

LEAST_GAIN = 3.0
"""The goal: so many times the images a second of one trial at a time."""


def main() -> None:
    args = parse_args()
    print(f"{args.system}, {args.size} px: images a second of one GPU")
    alone = images_per_second(1, args, {})
    print(f"  one trial: {alone.total:.1f} ({alone.device}, {alone.gibibytes:.1f} GiB)", flush=True)
    best = report("in turns", alone, args, {})
    daemon = MpsDaemon()
    try:
        if daemon.state.note:
            print(f"  without MPS only: {daemon.state.note}")
        else:
            best = max(best, report("MPS", alone, args, daemon.state.environment))
    finally:
        daemon.stop()
    print(f"  best: {best:.2f} times one trial at a time (goal: {LEAST_GAIN:g})")


class Result:
    """Images a second of all trials on a GPU, and what one of them takes."""

    def __init__(self, rates: list[float], device: str, peak: int) -> None:
        self.total, self.slowest, self.device = sum(rates), min(rates), device
        self.gibibytes = peak / 2**30


def report(
    mode: str, alone: Result, args: argparse.Namespace, variables: Mapping[str, str]
) -> float:
    """Prints a line for each number of trials; returns the largest gain."""
    best = 1.0
    for trials in args.trials:
        if trials == 1:
            continue
        try:
            shared = images_per_second(trials, args, variables)
        except RuntimeError as error:
            print(f"  {trials} trials, {mode}: {error}", flush=True)
            continue
        gain = shared.total / alone.total
        best = max(best, gain)
        print(
            f"  {trials} trials, {mode}: {shared.total:.1f} ({gain:.2f} times one; the slowest "
            f"trial {shared.slowest:.1f}, {shared.gibibytes:.1f} GiB each)", flush=True,
        )  # fmt: skip
    return best


def images_per_second(
    trials: int, args: argparse.Namespace, variables: Mapping[str, str]
) -> Result:
    """Raises RuntimeError if a trial fails, for example because its memory does not suffice."""
    context = multiprocessing.get_context("spawn")
    results, barrier = context.SimpleQueue(), context.Barrier(trials)
    options = {**vars(args), "share": 1 / trials}
    processes = [
        context.Process(target=train, args=(options, dict(variables), barrier, results))
        for _ in range(trials)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("failed, see above")
    rates, devices, peaks = zip(*(results.get() for _ in processes), strict=True)
    return Result([*rates], devices[0], max(peaks))


def train(
    options: dict[str, Any], variables: dict[str, str], barrier: Barrier, results: Any
) -> None:
    """One trial. The variables must be there before CUDA is used."""
    os.environ.update(variables)
    try:
        results.put(timed(options, barrier))
    except BaseException:
        barrier.abort()  # the others need not wait
        raise


def timed(options: dict[str, Any], barrier: Barrier) -> tuple[float, str, int]:
    """Images a second, the name of the device, and the most memory in bytes."""
    import torch

    from thermal_search.distributed.worker_group import WorkerGroup
    from thermal_search.storage import Location
    from thermal_search.training.cuda_graphs import WARMUP_STEPS
    from thermal_search.training.hardware import limit_memory
    from thermal_search.training.speed import random_frames
    from thermal_search.training.trial import Trial
    from thermal_search.training.trial_plan import TrialPlan

    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    is_gpu = device.type == "cuda"
    limit_memory(device, options["share"])
    with tempfile.TemporaryDirectory() as folder:
        plan = TrialPlan(
            id="",
            architecture=options["system"],
            parameters=options["settings"],
            folder=Location.of(Path(folder)),
            images=1,
            evaluate_every=1,
        )
        trial = Trial(plan, random_frames(options["size"]), None, WorkerGroup(), device)
    trial.translator.train()
    for _ in range(WARMUP_STEPS + 2 if is_gpu else 1):
        trial.step()
    barrier.wait(START_TIMEOUT_S)
    began, before = time.perf_counter(), trial.progress.images
    while time.perf_counter() < began + options["seconds"]:
        for _ in range(10 if is_gpu else 1):
            trial.step()
        if is_gpu:
            torch.cuda.synchronize()
    rate = (trial.progress.images - before) / (time.perf_counter() - began)
    barrier.wait(START_TIMEOUT_S)  # no one trains alone while another is timed
    if not is_gpu:
        return rate, "CPU", 0
    return rate, torch.cuda.get_device_name(), torch.cuda.max_memory_reserved()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", default="pix2pix")
    parser.add_argument("--settings", type=json.loads, default={}, help="as JSON")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--trials", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=8.0, help="timed, for each number")
    return parser.parse_args()


if __name__ == "__main__":
    main()
