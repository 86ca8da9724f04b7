"""How one trial scales over several workers: measured with 1 and 2, modeled beyond.

    python benchmarks/scaling.py --system pix2pix --size 64 --batch 8 --rounds 6

Every worker has one thread of one core (or one GPU) and its own batch, as in a search. Rounds
alternate between one worker alone and two together, so that other load on the machine affects both.
Efficiency is images/s of N workers / (N x images/s of one).

The model: a step of N workers takes the time of one worker's step plus the all-reduces of its
turns. A ring all-reduce of B bytes over links of W bytes/s with latency L takes
2 (N - 1) (L + B / (N W)). W and L come from two all-reduces of different size, measured with two
workers on this machine; --bandwidth (GB/s) and --latency (us) model another network.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from thermal_search import architectures
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.training.hardware import autocast_for, fastest_precision
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step

SMALL, LARGE = 1_000, 8_000_000
"""Float32 numbers of the two all-reduces."""


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = processes.get_context("spawn").SimpleQueue()
        processes.spawn(work, (args, folder, results), nprocs=2)
        alone, together, small, large, sent, precision = results.get()
    efficiency = statistics.median(a / t for a, t in zip(alone, together, strict=True))
    step, pair = statistics.median(alone), statistics.median(together)
    print(
        f"{args.system} {args.size} px, batch {args.batch} a worker, {precision}: "
        f"a step {step:.3f} s alone, {pair:.3f} s with a second worker; it sends "
        f"{sum(sent) / 1e6:.1f} MB in {len(sent)} all-reduces"
    )
    print(f"1 worker: {args.batch / step:.1f} images/s")
    print(
        f"2 workers: {2 * args.batch / pair:.1f} images/s, efficiency {efficiency:.0%} (measured)"
    )
    # With two workers 2 (N - 1) / N is 1: a time is 2 L + B / W.
    bandwidth = args.bandwidth * 1e9 or 4 * (LARGE - SMALL) / max(large - small, 1e-9)
    latency = args.latency / 1e6 or max(small - 4 * SMALL / bandwidth, 0.0) / 2
    print(f"links of {bandwidth / 1e9:.2f} GB/s, latency {latency * 1e6:.0f} us:")
    for workers in (2, 4, 8, 16):
        exchange = sum(ring(size, workers, bandwidth, latency) for size in sent)
        print(f"{workers} workers: efficiency {step / (step + exchange):.0%} (modeled)")


def ring(size: float, workers: int, bandwidth: float, latency: float) -> float:
    """Seconds of a ring all-reduce of `size` bytes."""
    return 2 * (workers - 1) * (latency + size / (workers * bandwidth))


class RandomBatches:
    """Yields one random batch again and again: only the step is timed."""

    def __init__(self, batch: int, size: int, device: torch.device) -> None:
        self.batch = Batch(
            rgb=torch.rand(batch, 3, size, size, device=device) * 2 - 1,
            thermal=torch.rand(batch, 1, size, size, device=device) * 2 - 1,
        )

    def __iter__(self) -> "RandomBatches":
        return self

    def __next__(self) -> Batch:
        return self.batch


def work(rank: int, args: argparse.Namespace, folder: str, results: Any) -> None:
    torch.set_num_threads(1)
    has_gpus = torch.cuda.device_count() >= 2
    device = torch.device(f"cuda:{rank}" if has_gpus else "cpu")
    alone_group = WorkerGroup()  # created before torch.distributed starts: a group of one
    dist.init_process_group(
        "nccl" if has_gpus else "gloo",
        f"file://{Path(folder, 'rendezvous')}",
        rank=rank,
        world_size=2,
    )
    group = WorkerGroup()
    torch.manual_seed(0)
    translator = architectures.build(args.system, args.size, {"batch_size": args.batch}).to(device)
    batches = RandomBatches(args.batch, args.size, device)
    translator.init_from_data(batches.batch)
    optimizers = build_optimizers(translator)
    precision = fastest_precision(device)
    autocast = autocast_for(device, precision)

    def step(workers: WorkerGroup) -> Callable[[], object]:
        translator.begin_step(0, 1_000_000)
        return lambda: train_step(translator, optimizers, batches, group=workers, autocast=autocast)

    alone: list[float] = []
    together: list[float] = []
    for round in range(args.rounds + 1):
        group.barrier()
        # The other worker waits at the barrier, without CPU time.
        single = timed(step(alone_group), device, args.steps) if group.is_rank_zero else 0.0
        group.barrier()
        both = timed(step(group), device, args.steps)
        if round:  # the first warms up
            alone.append(single)
            together.append(both)
    sent: list[int] = []
    reduce = group.average_gradients

    def counted(parameters: Any, terms: Any) -> Any:
        sent.append(4 * sum(p.grad.numel() for p in parameters if p.grad is not None))
        return reduce(parameters, terms)

    group.average_gradients = counted
    step(group)()
    small, large = (exchange(numbers, device) for numbers in (SMALL, LARGE))
    if group.is_rank_zero:
        results.put((alone, together, small, large, sent, precision))
    group.barrier()
    dist.destroy_process_group()


def exchange(numbers: int, device: torch.device) -> float:
    tensor = torch.ones(numbers, device=device)
    return statistics.median(timed(lambda: dist.all_reduce(tensor), device, 1) for _ in range(9))


def timed(action: Callable[[], object], device: torch.device, times: int) -> float:
    """Mean seconds of one call."""
    started = time.perf_counter()
    for _ in range(times):
        action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - started) / times


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--system", default="pix2pix")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=2, help="steps of one round")
    parser.add_argument("--bandwidth", type=float, default=0.0, help="of a link, in GB/s")
    parser.add_argument("--latency", type=float, default=0.0, help="of a link, in us")
    return parser.parse_args()


if __name__ == "__main__":
    main()
