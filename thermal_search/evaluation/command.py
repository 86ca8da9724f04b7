"""`thermal-search evaluate`: evaluates an exported generator on a dataset with every metric."""

import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

from thermal_search import generator
from thermal_search.architectures.from_file import SourceFile, register
from thermal_search.data.frames import EVALUATION_BATCH, EvaluationPairs, Frames
from thermal_search.data.manifest import Manifest, Split, read_manifest
from thermal_search.data.parquet import read_pairs, read_thermal
from thermal_search.distributed.worker_group import WorkerGroup, WorkerLost, keep_to_loopback
from thermal_search.errors import (
    DatasetError,
    MetricError,
    SearchError,
    SettingsError,
    ThermalSearchError,
    TrialDiverged,
)
from thermal_search.evaluation.baselines import (
    BASELINE_PASSES,
    TRIVIAL_BASELINE,
    baselines_path,
    load_cached_baselines,
    measure_and_cache_baselines,
)
from thermal_search.evaluation.comparison import compare
from thermal_search.evaluation.evaluator import Evaluator, full_protocol
from thermal_search.evaluation.real_statistics import measure_real_statistics
from thermal_search.evaluation.report import EvaluationReport
from thermal_search.images import Temperatures
from thermal_search.metrics import (
    FeaturesPrecision,
    PerceptualDistance,
    build_extractor,
    cached_statistics_path,
    load_cached,
    metric_name,
)
from thermal_search.storage import Location

REPORT_FILE, ERROR_FILE, STORE_FILE = "report.json", "error.txt", "store"
"""Files of the worker processes, in a temporary folder."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """Which generator is evaluated, on what, and how."""

    model: Location | Path
    """A folder written by export."""

    data: Location | Path
    """A prepared dataset."""

    split: Split = "val"
    workers: int = 1
    features: str = "inception"
    inception_weights: Path | None = None
    features_precision: FeaturesPrecision = "fp32"
    lpips_weights: Path | None = None
    own_architectures: tuple[SourceFile, ...] = ()
    """The files of architectures that are not in the package."""


class _ProgressCounter:
    """Counts, over all processes, the images that are measured and those that are to be."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.completed, self.total = context.Value("q", 0), context.Value("q", 0)

    def advance(self, images: int) -> None:
        with self.completed.get_lock():
            self.completed.value += images

    def add_to_total(self, images: int) -> None:
        with self.total.get_lock():
            self.total.value += images


class _ProgressBar(Progress):
    """Shows a counter whenever it is drawn."""

    def __init__(self, counter: _ProgressCounter) -> None:
        columns = (
            TextColumn("Evaluating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        self.counter = counter
        super().__init__(*columns, console=Console(stderr=True))
        self.add_task("", total=None)

    def get_renderables(self) -> Iterable[RenderableType]:
        completed, total = self.counter.completed.value, self.counter.total.value
        for task in self.task_ids:
            self.update(task, completed=completed, total=total or None)
        return super().get_renderables()


def evaluate(request: EvaluationRequest) -> EvaluationReport:
    """Evaluates an exported generator by the protocol of a search.

    The number of workers does not change the metrics. Raises SearchError, DatasetError, MetricError
    or WeightsUnavailable if the request cannot be met.
    """
    metric_name(request.features)
    if request.workers < 1:
        raise SettingsError(f"--workers must be at least 1, but is {request.workers}.")
    manifest = read_manifest(request.data)
    count = manifest.count("pairs", request.split)
    if count < 2:
        raise DatasetError(
            f"A Frechet distance needs at least 2 pairs, but the {request.split} split of "
            f"{request.data} has {count}: pass another --split."
        )
    size = generator.load(request.model).config.size
    trained = generator.load_config(request.model).temperatures
    if (generated := _range(trained)) != (found := _range(manifest.temperatures)):
        raise SearchError(
            f"{request.model} generates {generated}, but {request.data} has {found}, so that equal "
            "pixels have other meanings: prepare it with the --thermal and --celsius of the "
            "training data."
        )
    if size != manifest.size:
        raise SearchError(
            f"{request.model} generates images of {size} pixels a side, but {request.data} has "
            f"{manifest.size}: prepare it with --size {size}."
        )
    with tempfile.TemporaryDirectory() as name:
        folder, counter = Path(name), _ProgressCounter()
        with _ProgressBar(counter):
            if request.workers == 1:
                _evaluate(request, folder, counter, rank=0)
            else:
                _evaluate_in_processes(request, folder, counter)
        return EvaluationReport.model_validate_json((folder / REPORT_FILE).read_bytes())


def _range(temperatures: Temperatures | None) -> str:
    """What the pixels of thermal images mean, in words."""
    if temperatures is None:
        return "8-bit thermal images"
    return f"temperatures from {temperatures.low:g} to {temperatures.high:g} degrees Celsius"


def _evaluate_in_processes(
    request: EvaluationRequest, folder: Path, counter: _ProgressCounter
) -> None:
    try:
        spawn(_run_worker, (request, folder, counter), nprocs=request.workers)
    except ProcessExitedException:
        if (folder / ERROR_FILE).exists():
            raise MetricError((folder / ERROR_FILE).read_text()) from None
        raise MetricError(
            "A worker process was killed, perhaps because memory ran out: pass fewer --workers."
        ) from None
    except ProcessRaisedException as error:
        # The last line of the worker's traceback; the cause has all of it.
        reason = str(error).strip().splitlines()[-1]
        if WorkerLost.__name__ in reason:
            reason = "another one was killed, perhaps because memory ran out; pass fewer --workers"
        raise MetricError(f"A worker process failed: {reason}") from error


def _run_worker(
    rank: int, request: EvaluationRequest, folder: Path, counter: _ProgressCounter
) -> None:
    torch.set_num_threads(max((os.cpu_count() or 1) // request.workers, 1))
    keep_to_loopback()
    store = f"file://{folder / STORE_FILE}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=request.workers)
    try:
        _evaluate(request, folder, counter, rank=rank)
    except ThermalSearchError as error:
        (folder / ERROR_FILE).write_text(str(error))
        # The other workers wait in a collective: `spawn` terminates them.
        sys.exit(1)
    dist.destroy_process_group()


def _evaluate(
    request: EvaluationRequest, folder: Path, counter: _ProgressCounter, *, rank: int
) -> None:
    """Evaluates together with the other workers; rank 0 writes the report to `folder`."""
    for file in request.own_architectures:
        register(file)  # each process has a table of its own
    manifest = read_manifest(request.data)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", rank % torch.cuda.device_count())
    group = WorkerGroup()
    config = generator.load_config(request.model)
    translator = generator.load(request.model).to(device)
    extractor = build_extractor(
        request.features,
        inception_weights=request.inception_weights,
        precision=request.features_precision,
        device=device,
    )
    lpips = request.lpips_weights
    perceptual = PerceptualDistance(lpips, device) if lpips else None
    pairs = _shard_of(manifest, request.split, group)
    count = manifest.count("pairs", request.split)
    protocol = full_protocol(extractor.protocol(images=count, size=manifest.size), perceptual)

    statistics_file = cached_statistics_path(manifest.statistics, extractor, request.split, count)
    baselines_file = baselines_path(manifest.statistics, request.split, protocol)
    real = group.broadcast_object(lambda: load_cached(statistics_file))
    baselines = group.broadcast_object(lambda: load_cached_baselines(baselines_file))
    # All of it at once, before the first image is measured: a progress bar never moves backwards.
    passes = 1 + (real is None) + (baselines is None) * BASELINE_PASSES
    counter.add_to_total(passes * len(pairs))

    if real is None:
        real = measure_real_statistics(statistics_file, pairs, extractor, group, counter.advance)
    evaluator = Evaluator(pairs, extractor, real, group, device, perceptual, counter.advance)
    if baselines is None:
        rgb, thermal = read_pairs(manifest, "train")
        every = read_thermal(manifest, "train")
        training = [thermal, every.slice(len(thermal), len(every))]
        baselines = measure_and_cache_baselines(
            evaluator,
            [_same_fraction(frames, pairs, count) for frames in training],
            _same_fraction(rgb, pairs, count),
            baselines_file,
        )
    try:
        metrics = evaluator.evaluate(translator, folder / "grid.png").metrics
    except TrialDiverged as divergence:
        raise MetricError(f"{request.model} cannot be evaluated: {divergence}.") from None
    if group.is_rank_zero:
        metric = extractor.metric
        report = EvaluationReport(
            model=request.model.name,
            architecture=config.architecture,
            dataset=manifest.digest,
            split=request.split,
            metric=metric,
            protocol=evaluator.full_protocol,
            metrics=metrics,
            baselines=baselines,
            beats_inverted_grey=metrics[metric] < baselines[TRIVIAL_BASELINE][metric],
            better_than={
                comparison.baseline: list(comparison.better)
                for comparison in compare(metrics, baselines, metric)
            },
        )
        (folder / REPORT_FILE).write_text(report.model_dump_json())


def _shard_of(manifest: Manifest, split: Split, group: WorkerGroup) -> EvaluationPairs:
    """This worker's pairs: whole batches, except at the end of the split."""
    rgb, thermal = read_pairs(manifest, split)
    batches = math.ceil(len(rgb) / EVALUATION_BATCH)
    edges = [math.ceil(batches * rank / group.size) for rank in (group.rank, group.rank + 1)]
    start, stop = (min(edge * EVALUATION_BATCH, len(rgb)) for edge in edges)
    return EvaluationPairs(rgb.slice(start, stop), thermal.slice(start, stop), start)


def _same_fraction(frames: Frames, pairs: EvaluationPairs, count: int) -> Frames:
    """This worker's shard of other frames, at the same fractions as `pairs` are of `count`."""
    edges = (pairs.start, pairs.start + len(pairs))
    return frames.slice(*(edge * len(frames) // count for edge in edges))
