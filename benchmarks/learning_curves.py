"""Records the learning curves of hundreds of settings, for search_policies.py.

    python benchmarks/learning_curves.py curves.jsonl --minutes 100
    python benchmarks/learning_curves.py curves.jsonl --pack benchmarks/learning_curves.jsonl.gz

All thirteen architectures on drawn pairs, with the small networks of small_spaces.py. The first
round is the published setting of each architecture; every further one has one setting of each, as
the product's random sampler draws it from the space. In each round one setting is trained with two
further seeds. The same command resumes a recording; --pack writes the file that is kept.
"""

import argparse
import gzip
import logging
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import optuna
import torch
import torch.nn.functional as F
from drawn_pairs import drawn_frames
from optuna.samplers import RandomSampler
from recorded_curves import Curve, CurveFile, Evaluation, Head, read_curves
from small_spaces import IMAGES, small_space
from torch import Tensor

import search_spaces
from search_spaces import SearchSpace
from thermal_search.data.frames import WorkerFrames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import TrialDiverged
from thermal_search.evaluation.baselines import measure_baselines
from thermal_search.evaluation.evaluator import EvaluationResult, Evaluator
from thermal_search.metrics import Extractor, Statistics, build_extractor
from thermal_search.training.trial import Trial, TrialPlan
from thermal_search.tuning.own_code import OwnSpace
from thermal_search.tuning.samplers import seed_of
from thermal_search.tuning.space import ConditionalSpace

SIZE, FEATURE_SIZE = 32, 64
RECORDINGS, FRAMES, VALIDATION = 50, 20, 40
"""1,000 training pairs of 50 recordings, and 200 validation pairs of 40 others."""

EVALUATIONS = 10
FURTHER_SEEDS = (1, 2)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Run:
    """A setting and a seed to train it with."""

    architecture: str
    number: int
    seed: int

    @property
    def key(self) -> tuple[str, int, int]:
        return self.architecture, self.number, self.seed


def runs(architectures: list[str], rounds: int) -> Iterator[Run]:
    """What is recorded, in this order."""
    for number in range(rounds):
        for architecture in architectures:
            yield Run(architecture, number, 0)
        for seed in FURTHER_SEEDS:
            yield Run(architectures[number % len(architectures)], number, seed)


def setting(space: SearchSpace, architecture: str, number: int, seed: int) -> Mapping[str, Any]:
    """The parameters of an architecture's setting: the published ones, then random ones."""
    conditional = ConditionalSpace([architecture], own={architecture: space})
    if number == 0:
        return conditional.published(architecture).parameters
    sampler = RandomSampler(seed=seed_of(seed, number, f" {architecture}"))
    return conditional.suggest(optuna.create_study(sampler=sampler).ask()).parameters


class TimedEvaluator(Evaluator):
    """Knows how many CPU-seconds its evaluations took."""

    seconds = 0.0

    def evaluate(self, *args: Any, **settings: Any) -> EvaluationResult:
        began = time.process_time()
        try:
            return super().evaluate(*args, **settings)
        finally:
            self.seconds += time.process_time() - began


class Recorder:
    """The data and the evaluator of one process, and its runs."""

    def __init__(self, head: Head, data: WorkerFrames | None = None) -> None:
        torch.set_num_threads(1)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.head = head
        self.data = data or drawn_pairs()
        self.evaluator = evaluator_of(self.data)

    def record(self, run: Run) -> Curve:
        """Trains a setting to its end; one that diverges or fails is a result too."""
        head = self.head
        space = head.spaces[run.architecture].load()
        parameters = setting(space, run.architecture, run.number, head.seed)
        curve = Curve(
            architecture=run.architecture,
            number=run.number,
            seed=run.seed,
            parameters=dict(parameters),
            status="completed",
            evaluations=[],
            seconds=0.0,
            evaluation_seconds=0.0,
        )
        with tempfile.TemporaryDirectory() as folder:
            try:
                self._train(curve, Path(folder))
            except TrialDiverged as divergence:
                curve.status, curve.reason = "diverged", str(divergence)
            except Exception as error:
                curve.status, curve.reason = "failed", f"{type(error).__name__}: {error}"
                logging.exception("%s", run)
        return curve

    def _train(self, curve: Curve, folder: Path) -> None:
        """Adds each evaluation and the seconds to the curve."""
        images = self.head.images[curve.architecture]
        plan = TrialPlan(
            id="run",
            architecture=curve.architecture,
            parameters=curve.parameters,
            folder=folder,  # pyright: ignore[reportArgumentType] - becomes a Location
            images=images,
            evaluate_every=images // self.head.evaluations,
            seed=curve.seed,
            precision="fp32",
        )
        evaluator, began = self.evaluator, time.process_time()
        evaluator.seconds = 0.0
        try:
            trial = Trial(plan, self.data, evaluator, WorkerGroup(), CPU)
            for evaluation in trial.evaluations():
                metrics = evaluation.metrics
                curve.evaluations.append(
                    Evaluation(
                        images=evaluation.images,
                        seconds=round(time.process_time() - began - evaluator.seconds, 3),
                        distance=float(f"{metrics[evaluator.metric]:.6g}"),
                        kid=float(f"{metrics[evaluator.kid_metric]:.5g}"),
                        l1=float(f"{metrics['l1']:.5g}"),
                    )
                )
        finally:
            curve.seconds = round(time.process_time() - began - evaluator.seconds, 3)
            curve.evaluation_seconds = round(evaluator.seconds, 2)


def drawn_pairs() -> WorkerFrames:
    return drawn_frames(SIZE, recordings=RECORDINGS, frames=FRAMES, validation=VALIDATION)


def evaluator_of(data: WorkerFrames) -> TimedEvaluator:
    extractor = features_of_small_images()
    real = Statistics.of(extractor(data.validation.thermal.take(range(len(data.validation)))))
    return TimedEvaluator(data.validation, extractor, real, WorkerGroup(), CPU)


def features_of_small_images() -> Extractor:
    """EfficientNet-Lite0 on images of FEATURE_SIZE instead of 224 px: a twelfth of the time, for
    images that have no more pixels than a quarter of that."""
    full = build_extractor("efficientnet-lite0")

    def preprocess(pixels: Tensor) -> Tensor:
        resized = F.interpolate(pixels, size=(FEATURE_SIZE, FEATURE_SIZE), mode="bilinear")
        return (resized - 127) / 128

    return Extractor(
        full.name,
        full.dimensions,
        full.network,
        preprocess,
        resize=f"bilinear to {FEATURE_SIZE} px",
        digest=full.digest,
        memory_format=full.memory_format,
    )


def head_of(args: argparse.Namespace, data: WorkerFrames) -> Head:
    evaluator = evaluator_of(data)
    baselines = measure_baselines(evaluator, data.thermal, data.paired[0])
    keep = {evaluator.metric: "distance", evaluator.kid_metric: "kid", "l1": "l1"}
    return Head(
        size=SIZE,
        images=IMAGES,
        evaluations=EVALUATIONS,
        training_pairs=len(data.paired[0]),
        validation_pairs=len(data.validation),
        seed=args.seed,
        spaces={name: OwnSpace.of(small_space(name), "") for name in search_spaces.names()},
        protocol=evaluator.full_protocol,
        baselines={
            name: {keep[key]: round(value, 4) for key, value in metrics.items() if key in keep}
            for name, metrics in baselines.items()
        },
        machine=processor(),
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "optuna", "ray")},
        },
        date=date.today().isoformat(),
    )


def processor() -> str:
    """The model of the CPU, if the system says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


worker: Recorder


def start_worker(head: Head) -> None:
    global worker
    worker = Recorder(head)


def record_in_worker(run: Run) -> Curve:
    return worker.record(run)


def recorded(args: argparse.Namespace, recorder: Recorder, missing: list[Run]) -> Iterator[Curve]:
    """The curves of the missing runs, as they come."""
    if args.processes == 1:
        yield from map(recorder.record, missing)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.processes, start_worker, (recorder.head,)) as pool:
        yield from pool.imap_unordered(record_in_worker, missing)


def main() -> None:
    args = parse_args()
    if args.pack:
        read_curves(args.file)
        args.pack.write_bytes(gzip.compress(args.file.read_bytes(), mtime=0))
        return
    began = time.monotonic()
    torch.set_num_threads(1)
    data = drawn_pairs()
    head = head_of(args, data)
    recorder = Recorder(head, data)
    file = CurveFile(args.file, head)
    planned = runs(args.architectures, args.rounds)
    missing = [run for run in planned if run.key not in file.recorded]
    for curve in recorded(args, recorder, missing):
        file.add(curve)
        last = curve.evaluations[-1] if curve.evaluations else None
        print(
            f"{len(file.recorded)} {time.monotonic() - began:.0f} s: {curve.architecture} "
            f"{curve.number} seed {curve.seed}: {curve.status} {curve.reason}"
            + (f" distance {last.distance:.0f}, L1 {last.l1:.1f}" if last else "")
            + f", {curve.seconds:.1f} + {curve.evaluation_seconds:.1f} CPU-seconds",
            flush=True,
        )
        if args.minutes and time.monotonic() - began > 60 * args.minutes:
            return


def parse_args() -> argparse.Namespace:
    names = search_spaces.names()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="JSON lines; resumed if it exists")
    parser.add_argument("--architectures", nargs="+", default=names, choices=names)
    parser.add_argument("--rounds", type=int, default=24, help="settings of each architecture")
    parser.add_argument("--minutes", type=float, help="after which no run starts any more")
    parser.add_argument("--seed", type=int, default=0, help="of the settings")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--pack", type=Path, metavar="FILE.gz", help="only write the kept file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
