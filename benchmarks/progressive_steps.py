"""Training steps of the networks that grow, at each resolution.

    python benchmarks/progressive_steps.py [--systems stylegan] [--size 128]

Milliseconds a step at the published setting, while a resolution fades in and after: the first step,
the last that is played and, on a GPU, the last that is replayed; and the seconds for all of them.
"""

import argparse
import time

import torch
from cuda_graphs import FORMATS, prepared

from thermal_search.training.cuda_graphs import WARMUP_STEPS
from thermal_search.training.hardware import fastest_precision

BUDGET = 10_000
STEPS = 2 * WARMUP_STEPS + 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["progressive_gan", "stylegan"]
    parser.add_argument("--systems", nargs="+", choices=names, default=names)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--try-algorithms", action="store_true", help="with cudnn's choice by trial"
    )
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {fastest_precision(device)}")
    for name in args.systems:
        grow(name, args.size, args.batch, args.try_algorithms, device)


def grow(name: str, size: int, batch: int, tries: bool, device: torch.device) -> None:
    translator, steps = prepared(name, size, batch, FORMATS["channels first"], device)
    torch.backends.cudnn.benchmark = tries
    begun = time.perf_counter()
    for stage in stages(translator):
        times = []
        for _ in range(STEPS):
            if translator.begin_step(stage, BUDGET):
                steps.reset()
            started = time.perf_counter()
            steps.run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - started) * 1000)
        growth = translator.discriminator.growth
        told = f"{name} at {growth.resolution:3}, {'fading in' if growth.alpha < 1 else 'after':9}:"
        told += f" first {times[0]:.0f} ms, played {times[WARMUP_STEPS - 1]:.0f}"
        print(told + (f", replayed {times[-1]:.0f}" if steps.graphs else ""), flush=True)
    print(f"{name}: {time.perf_counter() - begun:.1f} s in all", flush=True)


def stages(translator) -> list[int]:
    """Of a budget, the images shown amid each stage of growth."""
    amid: dict[tuple[int, bool], list[int]] = {}
    for images in range(0, BUDGET, 10):
        translator.begin_step(images, BUDGET)
        growth = translator.discriminator.growth
        amid.setdefault((growth.resolution, growth.alpha < 1), []).append(images)
    translator.begin_step(0, BUDGET)
    return [images[len(images) // 2] for images in amid.values()]


if __name__ == "__main__":
    main()
