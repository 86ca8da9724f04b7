"""Our training step against the peers', over the peers' own networks, interleaved.

    git clone https://github.com/eriklindernoren/PyTorch-GAN
    git clone https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix
    python benchmarks/training_step.py pytorch-gan PyTorch-GAN
    python benchmarks/training_step.py junyanz pytorch-CycleGAN-and-pix2pix

The peer's networks play the peer's step as its scripts write it: its optimizers, float32, new
target tensors at each step. Beside them equal networks are driven by our trainer, as turns with the
same losses: only the step differs, and padding by reflection, which is ours (networks/padding.py:
the same, and on a CPU quicker). Rounds alternate, so that a busy moment meets both; the median
of the rounds' ratios is what counts. On a CPU, CPU-seconds are compared beside the clock's.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from peers import junyanz, pytorch_gan
from peers.match import Match

from thermal_search.images import Batch
from thermal_search.training.cuda_graphs import WARMUP_STEPS
from thermal_search.training.hardware import fastest_precision

PEERS = {"pytorch-gan": pytorch_gan, "junyanz": junyanz}
SCRIPTED = {"gan", "cgan", "dcgan", "wgan", "wgan_gp"}
"""Small networks, which their scripts feed in batches of 64."""


class Seconds(NamedTuple):
    clock: float
    cpu: float


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = fastest_precision(device) if args.precision == "auto" else args.precision
    place = torch.cuda.get_device_name() if device.type == "cuda" else f"{args.threads} threads"
    print(f"torch {torch.__version__}, {device} ({place}); ours in {precision}, peer in fp32")
    for name, match in PEERS[args.peer].matches(args.checkout, args.size).items():
        if not args.systems or name in args.systems:
            batch = args.batch or (64 if name in SCRIPTED else 1)
            compare(name, match, batch, precision, device, args)


def compare(
    name: str, match: Match, batch: int, precision: str, device: torch.device, args
) -> None:
    rgb, thermal = (
        torch.rand(batch, channels, args.size, args.size, device=device) * 2 - 1
        for channels in match.channels
    )

    def draw() -> Batch:
        return Batch(rgb, thermal)

    # The peers' scripts leave it off; our trials turn it on for such networks (training/step.py).
    steps = (
        tuned(match.peer_step(draw, device), False),
        tuned(match.our_step(draw, device, precision), device.type == "cuda"),
    )
    for step in steps:
        for _ in range(WARMUP_STEPS + 2):
            step()
    rounds = [tuple(timed(step, device) for step in steps) for _ in range(args.rounds)]
    told = f"{name:9} {args.size:3} px, batch {batch:2}:"
    for kind in Seconds._fields if device.type == "cpu" else ("clock",):
        pairs = [(getattr(peer, kind), getattr(ours, kind)) for peer, ours in rounds]
        ratios = [peer / ours for peer, ours in pairs]
        peer, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
        told += (
            f" {kind}: peer {peer:.4f} s, ours {ours:.4f} s, {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f});"
        )
    print(told.rstrip(";"), flush=True)


def tuned(step: Callable[[], object], on: bool) -> Callable[[], object]:
    """With cudnn's choice by trial on or off, as the one who plays the step has it."""

    def play() -> None:
        torch.backends.cudnn.benchmark = on
        step()

    return play


def timed(step: Callable[[], object], device: torch.device) -> Seconds:
    """Of enough steps to be measured, for one."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    count = 0
    begun, used = time.perf_counter(), time.process_time()
    while count == 0 or time.perf_counter() - begun < 0.2:
        step()
        count += 1
        if device.type == "cuda" and count % 4 == 0:
            torch.cuda.synchronize()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return Seconds((time.perf_counter() - begun) / count, (time.process_time() - used) / count)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("checkout", type=Path, help="of the peer's repository")
    parser.add_argument("--systems", nargs="+", help="default: all that the peer has")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, help="default: the peer's own")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
