"""One measurement on this machine's GPU (or, slowly, on its CPUs); benchmarks/on_gpu.sh runs all.

    python benchmarks/on_gpu.py start FOLDER [--system pix2pix] [--size 256]
    python benchmarks/on_gpu.py train FOLDER [--data DATASET] [--system pix2pix] [--size 256]
    python benchmarks/on_gpu.py workers FOLDER [--system pix2pix] [--size 256]

start: how long the parts of a trial's start take: imports, the first CUDA work, the networks, the
first step with cuDNN's trials, an eager step, the step that is recorded as a CUDA graph, and one
that is replayed. train: the same, then how fast it trains, and what it learns beside the baselines.
workers: how fast one worker trains, and two that share the GPU. None needs Ray.
"""

import argparse
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

BEGAN = time.perf_counter()

import torch  # noqa: E402 - importing takes a part of the time that is measured
import torch.distributed as dist  # noqa: E402
from drawn_pairs import drawn_frames  # noqa: E402

from thermal_search.architectures import ARCHITECTURES  # noqa: E402
from thermal_search.data.frames import EvaluationPairs, WorkerFrames  # noqa: E402
from thermal_search.data.manifest import read_manifest  # noqa: E402
from thermal_search.data.parquet import read_pairs  # noqa: E402
from thermal_search.distributed.worker_group import WorkerGroup  # noqa: E402
from thermal_search.evaluation.baselines import measure_baselines  # noqa: E402
from thermal_search.evaluation.comparison import compare  # noqa: E402
from thermal_search.evaluation.evaluator import Evaluator  # noqa: E402
from thermal_search.metrics import Statistics, build_extractor  # noqa: E402
from thermal_search.storage import Location  # noqa: E402
from thermal_search.training.cuda_graphs import WARMUP_STEPS  # noqa: E402
from thermal_search.training.trial import Trial, TrialPlan  # noqa: E402

IMPORTED = time.perf_counter()

SETTINGS: dict[str, dict[str, object]] = {
    "pix2pix": {"norm": "instance", "discriminator_norm": "instance", "batch_size": 8},
    "cyclegan": {"batch_size": 4},
    "unit": {"batch_size": 2},
    "thermalgan": {"batch_size": 4},
}
"""Where the published batch size leaves a GPU idle; the others train as published."""

TIMED_STEPS = 20


def main() -> None:
    args = parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    {"start": train, "train": train, "workers": share_the_gpu}[args.part](args)


def train(args: argparse.Namespace) -> None:
    device, seconds = start(args)
    clock = time.perf_counter()
    data = frames_of(args)
    seconds["frames"] = time.perf_counter() - clock
    clock = time.perf_counter()
    evaluator = evaluator_of(data, device)
    baselines = measure_baselines(evaluator, data.thermal, data.paired[0])
    seconds["evaluator and baselines"] = time.perf_counter() - clock

    folder = args.folder / f"{args.system}-{args.size}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    clock = time.perf_counter()
    plan = plan_of(args, folder)
    trial = Trial(plan, data, evaluator, WorkerGroup(), device)
    synchronize(device)
    seconds["networks"] = time.perf_counter() - clock
    untrained = evaluator.evaluate(trial.translator, folder / "untrained.png").metrics
    times = timed_steps(trial, WARMUP_STEPS + TIMED_STEPS)
    seconds["first step, with cuDNN's trials"] = times[0]
    seconds["an eager step"] = statistics.median(times[1:WARMUP_STEPS])
    recording = max(times[WARMUP_STEPS : WARMUP_STEPS + 4])
    seconds["the step that is recorded"] = recording
    seconds["a step"] = statistics.median(times[-TIMED_STEPS // 2 :])
    for name, value in seconds.items():
        print(f"  {name}: {1000 * value:.1f} ms" if value < 1 else f"  {name}: {value:.1f} s")
    if args.part == "start":
        return

    batch = trial.translator.config.batch_size
    images = args.images or max(int(args.seconds / seconds["a step"]) * batch, 4 * batch)
    trial = Trial(
        replace(plan, images=images, evaluate_every=max(images // 4, 1)),
        data, evaluator, WorkerGroup(), device,
    )  # fmt: skip
    metric = evaluator.metric
    print(f"  untrained: distance {untrained[metric]:.1f}, L1 {untrained['l1']:.1f}")
    for evaluation in trial.evaluations():
        print(
            f"  {evaluation.images:,} images at {evaluation.images_per_second:.0f}/s: distance "
            f"{evaluation.metrics[metric]:.1f}, L1 {evaluation.metrics['l1']:.1f}", flush=True,
        )  # fmt: skip
    last = trial.history[-1].metrics
    for comparison in compare(last, baselines, metric):
        print(f"  {comparison.sentence()}")
    (folder / "result.json").write_text(
        json.dumps({"seconds": seconds, "metrics": last, "baselines": baselines}, indent=1) + "\n"
    )
    print(f"  images: {folder / evaluation.grid}")


def share_the_gpu(args: argparse.Namespace) -> None:
    """One worker's images/s, then those of two on the same device, averaging over gloo."""
    context = multiprocessing.get_context("spawn")
    speeds: list[float] = []
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            results = context.SimpleQueue()
            processes = [
                context.Process(target=work, args=(rank, workers, args, folder, results))
                for rank in range(workers)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            if any(process.exitcode for process in processes):
                raise SystemExit(f"A worker of {workers} failed: see above.")
            speeds.append(results.get())
    print(
        f"  {args.system} {args.size} px: one worker {speeds[0]:.0f} images/s, two on one device "
        f"{speeds[1]:.0f} ({speeds[1] / speeds[0]:.2f} times)"
    )


def work(rank: int, workers: int, args: argparse.Namespace, folder: str, results: Any) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if workers > 1:
        address = f"file://{Path(folder, 'rendezvous')}"
        dist.init_process_group("gloo", address, rank=rank, world_size=workers)
    group = WorkerGroup()
    data = drawn_frames(args.size, recordings=2, frames=16, validation=2)
    evaluator = evaluator_of(data, device)
    trial = Trial(plan_of(args, Path(folder)), data, evaluator, group, device)
    times = timed_steps(trial, WARMUP_STEPS + TIMED_STEPS)
    if rank == 0:
        batch = trial.translator.config.batch_size * workers
        results.put(batch / statistics.median(times[-TIMED_STEPS // 2 :]))
    group.barrier()
    if workers > 1:
        dist.destroy_process_group()


def start(args: argparse.Namespace) -> tuple[torch.device, dict[str, float]]:
    """The device, and the seconds until it has computed something."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{args.system}, {args.size} px, {name}, torch {torch.__version__}")
    clock = time.perf_counter()
    torch.ones(8, 8, device=device).sum().item()
    return device, {"imports": IMPORTED - BEGAN, "first CUDA work": time.perf_counter() - clock}


def frames_of(args: argparse.Namespace) -> WorkerFrames:
    """Of a prepared dataset of this size, or drawn."""
    if not args.data:
        return drawn_frames(args.size, recordings=args.recordings, processes=args.processes)
    manifest = read_manifest(args.data)
    if manifest.size != args.size:
        raise SystemExit(f"{args.data} has images of {manifest.size} px: pass --size with it.")
    training = read_pairs(manifest, "train")
    nothing = EvaluationPairs(training[0].slice(0, 0), training[1].slice(0, 0), 0)
    validation = EvaluationPairs(*read_pairs(manifest, "val"), 0)
    return WorkerFrames(args.size, training, training, validation, nothing, manifest.pair_alignment)


def evaluator_of(data: WorkerFrames, device: torch.device) -> Evaluator:
    extractor = build_extractor("efficientnet-lite0", device=device)
    thermal = data.validation.thermal
    batches = (
        thermal.take(range(i, min(i + 16, len(thermal)))) for i in range(0, len(thermal), 16)
    )
    real = Statistics.of(torch.cat([extractor(batch.to(device)) for batch in batches]))
    return Evaluator(data.validation, extractor, real, WorkerGroup(), device)


def plan_of(args: argparse.Namespace, folder: Path) -> TrialPlan:
    return TrialPlan(
        id=args.system,
        architecture=args.system,
        parameters=SETTINGS.get(args.system, {}) | args.settings,
        folder=Location.of(folder),
        images=1,  # steps are timed at the end of the budget, when networks have grown
        evaluate_every=1,
    )


def timed_steps(trial: Trial, count: int) -> list[float]:
    """Seconds of each of the first `count` steps."""
    trial.translator.train()
    times: list[float] = []
    for _ in range(count):
        clock = time.perf_counter()
        trial.step()
        synchronize(trial.device)
        times.append(time.perf_counter() - clock)
    return times


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["start", "train", "workers"])
    parser.add_argument("folder", type=Path, help="for checkpoints and images")
    parser.add_argument("--data", type=Path, help="a folder written by process.py; default: drawn")
    parser.add_argument("--system", choices=sorted(ARCHITECTURES), default="pix2pix")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=40, help="of training, about")
    parser.add_argument("--images", type=int, help="instead of --seconds")
    parser.add_argument("--settings", type=json.loads, default={}, help="as JSON")
    parser.add_argument("--recordings", type=int, default=32, help="drawn, of 40 pairs each")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    return parser.parse_args()


if __name__ == "__main__":
    main()
