"""Training steps of the progressively growing networks, at each resolution.

    python benchmarks/progressive_steps.py [--systems stylegan] [--size 128]

Milliseconds a step at the published setting, with the batch size of each resolution, while it fades
in and after: the first step, the last eager one and, on a GPU, the last replay of the CUDA graph;
and the seconds for all steps.
"""

import argparse
import time

import torch
from cuda_graphs import FORMATS, SameBatches, build_runner

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
    parser.add_argument(
        "--batch", type=int, help="images a batch at 128 pixels; default: as published"
    )
    parser.add_argument(
        "--cudnn-benchmark", action="store_true", help="with cuDNN's benchmark mode"
    )
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {fastest_precision(device)}")
    for name in args.systems:
        grow(name, args.size, args.batch, args.cudnn_benchmark, device)


def grow(
    name: str, size: int, batch: int | None, cudnn_benchmark: bool, device: torch.device
) -> None:
    batches = SameBatches(size, 1, device)
    translator, runner = build_runner(
        name,
        size,
        {"batch_size": batch} if batch else {},
        batches,
        FORMATS["channels first"],
        device,
    )
    torch.backends.cudnn.benchmark = cudnn_benchmark
    began = time.perf_counter()
    for stage in stages(translator):
        times = []
        images = translator.config.batch_size_at(stage / BUDGET)
        batches.resize(images)
        for _ in range(STEPS):
            if translator.begin_step(stage, BUDGET):
                runner.reset()
            started = time.perf_counter()
            runner.run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append((time.perf_counter() - started) * 1000)
        growth = translator.discriminator.growth
        line = f"{name} at {growth.resolution:3}, {'fading in' if growth.alpha < 1 else 'after':9}:"
        line += f" batch {images}, first {times[0]:.0f} ms, eager {times[WARMUP_STEPS - 1]:.0f}"
        print(line + (f", replayed {times[-1]:.0f}" if runner.graphs else ""), flush=True)
    print(f"{name}: {time.perf_counter() - began:.1f} s in all", flush=True)


def stages(translator) -> list[int]:
    """The images shown in the middle of each stage of growth."""
    images_of: dict[tuple[int, bool], list[int]] = {}
    for images in range(0, BUDGET, 10):
        translator.begin_step(images, BUDGET)
        growth = translator.discriminator.growth
        images_of.setdefault((growth.resolution, growth.alpha < 1), []).append(images)
    translator.begin_step(0, BUDGET)
    return [images[len(images) // 2] for images in images_of.values()]


if __name__ == "__main__":
    main()
