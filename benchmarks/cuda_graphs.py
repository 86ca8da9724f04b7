"""Our own training steps, eager and as CUDA graphs, with weights channels first and channels last.

    python benchmarks/cuda_graphs.py [--systems pix2pix cyclegan] [--size 256]

Milliseconds a step at the published setting, except for the batch size (`--batch`); growth finished
(see progressive_steps.py). Without a GPU there are no graphs: only the memory formats are compared.
"""

import argparse
import time
from collections.abc import Callable

import torch

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.architectures.translator import Translator
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.training.cuda_graphs import WARMUP_STEPS, StepRunner
from thermal_search.training.hardware import autocast_for, fastest_precision, use_cudnn_benchmark
from thermal_search.training.optimizers import build_optimizers

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
MIN_SECONDS = 0.25


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=sorted(ARCHITECTURES), default=["pix2pix"])
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=2, help="even for thermalgan")
    args = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"torch {torch.__version__}, {device}, {fastest_precision(device)}")
    for name in args.systems:
        for format in FORMATS:
            for use_graphs in (False, True) if device.type == "cuda" else (False,):
                step = step_of(name, args.size, args.batch, FORMATS[format], use_graphs, device)
                mode = "CUDA graph" if use_graphs else "eager"
                print(f"{name} {mode}, {format}: {milliseconds(step, device):.1f} ms", flush=True)


def step_of(
    name: str,
    size: int,
    batch: int,
    format: torch.memory_format,
    use_graphs: bool,
    device: torch.device,
) -> Callable[[], object]:
    batches = SameBatches(size, batch, device)
    translator, runner = build_runner(name, size, {"batch_size": batch}, batches, format, device)
    runner.use_cuda_graphs = use_graphs

    def step() -> None:
        translator.begin_step(1, 1)  # the end of the budget: growth is finished
        runner.run()

    return step


class SameBatches:
    """An iterator over batches of random images: the same ones each time."""

    def __init__(self, size: int, images: int, device: torch.device) -> None:
        self.size, self.device = size, device
        self.resize(images)

    def resize(self, images: int) -> None:
        """Batches have so many images from now on."""
        torch.manual_seed(0)
        self.batch = Batch(
            *(
                torch.rand(images, channels, self.size, self.size, device=self.device) * 2 - 1
                for channels in (3, 1)
            )
        )

    def __iter__(self) -> "SameBatches":
        return self

    def __next__(self) -> Batch:
        return self.batch


def build_runner(
    name: str,
    size: int,
    settings: dict[str, int],
    batches: SameBatches,
    format: torch.memory_format,
    device: torch.device,
) -> tuple[Translator, StepRunner]:
    torch.manual_seed(0)
    settings = settings | ({"warmup_n_critic": 0} if name == "wgan" else {})
    translator = build(name, size, settings).to(device).to(memory_format=format)
    torch.backends.cudnn.benchmark = use_cudnn_benchmark(translator, device)
    translator.init_from_data(next(batches))
    runner = StepRunner(
        translator,
        build_optimizers(translator),
        batches,
        group=WorkerGroup(),
        autocast=autocast_for(device, fastest_precision(device)),
        device=device,
    )
    return translator, runner


def milliseconds(step: Callable[[], object], device: torch.device) -> float:
    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(WARMUP_STEPS + 2):
        step()
    synchronize()
    began, count = time.perf_counter(), 0
    while count < 3 or time.perf_counter() - began < MIN_SECONDS:
        step()
        count += 1
        if count % 4 == 0:
            synchronize()
    synchronize()
    return (time.perf_counter() - began) / count * 1000


if __name__ == "__main__":
    main()
