"""Our training step against other implementations' ("peers"), on the peers' own networks.

    git clone https://github.com/eriklindernoren/PyTorch-GAN
    git clone https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix
    python benchmarks/training_step.py pytorch-gan PyTorch-GAN
    python benchmarks/training_step.py junyanz pytorch-CycleGAN-and-pix2pix

The peer's step is written as in its scripts: its optimizers, float32, new target tensors at each
step. Equal networks are trained by our step with the same losses, as turns: only the step differs,
and reflection padding, which is ours (networks/padding.py: the same values, faster on a CPU).
Rounds alternate, so that other load on the machine affects both; the result is the median of the
rounds' ratios. On a CPU, CPU-seconds are compared as well as wall-clock seconds.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from peers import junyanz, pytorch_gan
from peers.comparison import Comparison

from thermal_search.images import Batch
from thermal_search.training.cuda_graphs import WARMUP_STEPS
from thermal_search.training.hardware import fastest_precision

PEERS = {"pytorch-gan": pytorch_gan, "junyanz": junyanz}
SINGLE_SCRIPT = {"gan", "cgan", "dcgan", "wgan", "wgan_gp"}
"""Small networks, which their scripts train with batches of 64."""


class Seconds(NamedTuple):
    """Per step."""

    clock: float
    cpu: float


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = fastest_precision(device) if args.precision == "auto" else args.precision
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else f"{args.threads} threads"
    print(f"torch {torch.__version__}, {device} ({hardware}); ours in {precision}, peer in fp32")
    for name, comparison in PEERS[args.peer].comparisons(args.checkout, args.size).items():
        if not args.systems or name in args.systems:
            batch = args.batch or (64 if name in SINGLE_SCRIPT else 1)
            compare(name, comparison, batch, precision, device, args)


def compare(
    name: str, comparison: Comparison, batch: int, precision: str, device: torch.device, args
) -> None:
    rgb, thermal = (
        torch.rand(batch, channels, args.size, args.size, device=device) * 2 - 1
        for channels in comparison.channels
    )

    def draw() -> Batch:
        return Batch(rgb, thermal)

    # The peers' scripts leave cuDNN's benchmark mode off; our trials turn it on for such networks
    # (training/step.py).
    steps = (
        with_cudnn_benchmark(False, comparison.peer_step(draw, device)),
        with_cudnn_benchmark(device.type == "cuda", comparison.our_step(draw, device, precision)),
    )
    for step in steps:
        for _ in range(WARMUP_STEPS + 2):
            step()
    rounds = [tuple(timed(step, device) for step in steps) for _ in range(args.rounds)]
    line = f"{name:9} {args.size:3} px, batch {batch:2}:"
    for kind in Seconds._fields if device.type == "cpu" else ("clock",):
        pairs = [(getattr(peer, kind), getattr(ours, kind)) for peer, ours in rounds]
        ratios = [peer / ours for peer, ours in pairs]
        peer, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
        line += (
            f" {kind}: peer {peer:.4f} s, ours {ours:.4f} s, {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f});"
        )
    print(line.rstrip(";"), flush=True)


def with_cudnn_benchmark(is_on: bool, step: Callable[[], object]) -> Callable[[], object]:
    """Sets cuDNN's benchmark mode before each step: both steps alternate in one process."""

    def run() -> None:
        torch.backends.cudnn.benchmark = is_on
        step()

    return run


def timed(step: Callable[[], object], device: torch.device) -> Seconds:
    """Mean over enough steps to take 0.2 s."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    count = 0
    clock, cpu = time.perf_counter(), time.process_time()
    while count == 0 or time.perf_counter() - clock < 0.2:
        step()
        count += 1
        if device.type == "cuda" and count % 4 == 0:
            torch.cuda.synchronize()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return Seconds((time.perf_counter() - clock) / count, (time.process_time() - cpu) / count)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("checkout", type=Path, help="of the peer's repository")
    parser.add_argument("--systems", nargs="+", help="default: all of the peer")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, help="default: the peer's own")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
