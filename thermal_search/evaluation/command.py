"""`thermal-search evaluate`: an exported generator, judged on a dataset with the whole table."""

import json
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from thermal_search import export
from thermal_search.data.frames import EVALUATION_BATCH, EvaluationPairs, Frames
from thermal_search.data.manifest import Manifest, Split, read_manifest
from thermal_search.data.parquet import read_pairs, read_thermal
from thermal_search.distributed.worker_group import WorkerGroup, keep_to_loopback
from thermal_search.errors import (
    DatasetError,
    MetricError,
    SearchError,
    ThermalSearchError,
    TrialDiverged,
)
from thermal_search.evaluation.baselines import (
    BASELINE_PASSES,
    TRIVIAL_BASELINE,
    baselines_path,
    load_cached_baselines,
    load_or_measure_baselines,
)
from thermal_search.evaluation.evaluator import Evaluator, full_protocol, measure_real
from thermal_search.metrics import (
    FeaturesPrecision,
    PerceptualDistance,
    build_extractor,
    cached_statistics_path,
    load_cached,
    metric_name,
)
from thermal_search.storage import Location


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is judged, on what, and how."""

    model: Location | Path
    data: Location | Path
    split: Split = "val"
    workers: int = 1
    features: str = "inception"
    inception_weights: Path | None = None
    features_precision: FeaturesPrecision = "fp32"
    lpips_weights: Path | None = None


class _ProgressCounter:
    """How many images all workers have measured, of how many."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.done, self.expected = context.Value("q", 0), context.Value("q", 0)

    def advance(self, pictures: int) -> None:
        with self.done.get_lock():
            self.done.value += pictures

    def expect(self, pictures: int) -> None:
        with self.expected.get_lock():
            self.expected.value += pictures


class _Bar(Progress):
    """Follows a tally by itself."""

    def __init__(self, tally: _ProgressCounter) -> None:
        columns = (TextColumn("Judging"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.tally = tally
        super().__init__(*columns, console=Console(stderr=True))
        self.add_task("", total=None)

    def get_renderables(self) -> Iterable[RenderableType]:
        for task in self.task_ids:
            self.update(
                task, completed=self.tally.done.value, total=self.tally.expected.value or None
            )
        return super().get_renderables()


def evaluate(request: Request) -> dict[str, Any]:
    """Evaluators an exported generator as a search evaluators its trials; the table as plain values.

    One worker or several find the same numbers. Raises SearchError, DatasetError, MetricError or
    WeightsUnavailable where it cannot be done.
    """
    metric_name(request.features)
    if request.workers < 1:
        raise MetricError(f"--workers must be at least 1, but is {request.workers}.")
    manifest = read_manifest(request.data)
    count = manifest.count("pairs", request.split)
    if count < 2:
        raise DatasetError(
            f"A Frechet distance needs at least 2 pairs, but the {request.split} split of "
            f"{request.data} has {count}: pass another --split."
        )
    size = export.load(request.model).config.size
    if size != manifest.size:
        raise SearchError(
            f"{request.model} paints {size} pixels a side, but {request.data} has "
            f"{manifest.size}: prepare it with --size {size}."
        )
    with tempfile.TemporaryDirectory() as folder:
        place, tally = Path(folder), _ProgressCounter()
        with _Bar(tally):
            if request.workers == 1:
                _evaluator(0, request, place, tally)
            else:
                _evaluate_in_processes(request, place, tally)
        return json.loads((place / "found.json").read_text())


def _evaluate_in_processes(request: Request, place: Path, tally: _ProgressCounter) -> None:
    try:
        spawn(_work, (request, place, tally), nprocs=request.workers)
    except ProcessExitedException:
        if not (place / "error").exists():
            raise
        raise MetricError((place / "error").read_text()) from None


def _work(rank: int, request: Request, place: Path, tally: _ProgressCounter) -> None:
    torch.set_num_threads(max((os.cpu_count() or 1) // request.workers, 1))
    keep_to_loopback()
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=request.workers
    )
    try:
        _evaluator(rank, request, place, tally)
    except ThermalSearchError as error:
        (place / "error").write_text(str(error))
        # The others wait for this one: whoever started them ends them all.
        sys.exit(1)
    dist.destroy_process_group()


def _evaluator(rank: int, request: Request, place: Path, tally: _ProgressCounter) -> None:
    manifest = read_manifest(request.data)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", rank % torch.cuda.device_count())
    group = WorkerGroup()
    translator = export.load(request.model).to(device)
    extractor = build_extractor(
        request.features,
        inception_weights=request.inception_weights,
        precision=request.features_precision,
        device=device,
    )
    weights = request.lpips_weights
    perceptual = PerceptualDistance(weights, device) if weights else None
    pairs = _share(manifest, request.split, group)
    count = manifest.count("pairs", request.split)
    file = cached_statistics_path(manifest.statistics, extractor, request.split, count)
    real = group.broadcast_object(lambda: load_cached(file))
    protocol = full_protocol(extractor.protocol(images=count, size=manifest.size), perceptual)
    baselines_file = baselines_path(manifest.statistics, request.split, protocol)
    passes = 1 if real else 2
    if not group.broadcast_object(lambda: load_cached_baselines(baselines_file)):
        passes += BASELINE_PASSES
    # All at once, before any of it is measured: a bar does not go backwards.
    tally.expect(passes * len(pairs))
    real = real or measure_real(file, pairs, extractor, group, tally.advance)
    evaluator = Evaluator(pairs, extractor, real, group, device, perceptual, tally.advance)
    training = _part(read_thermal(manifest, "train"), pairs, count)
    baselines = load_or_measure_baselines(evaluator, [training], manifest.statistics, request.split)
    try:
        found = evaluator.evaluate(translator, place / "grid.png")
    except TrialDiverged as divergence:
        raise MetricError(f"{request.model} cannot be judged: {divergence}.") from None
    if group.is_rank_zero:
        content = {
            "model": request.model.name,
            "architecture": type(translator).__name__,
            "dataset": manifest.digest,
            "split": request.split,
            "metric": extractor.metric,
            "protocol": evaluator.full_protocol,
            "numbers": found.metrics,
            "baselines": baselines,
            "beats_inverted_grey": found.metrics[extractor.metric]
            < baselines[TRIVIAL_BASELINE][extractor.metric],
        }
        (place / "found.json").write_text(json.dumps(content))


def _share(manifest: Manifest, split: Split, group: WorkerGroup) -> EvaluationPairs:
    """This worker's run of the split's pairs, from a multiple of a batch on."""
    rgb, thermal = read_pairs(manifest, split)
    batches = math.ceil(len(rgb) / EVALUATION_BATCH)
    edges = [math.ceil(batches * rank / group.size) for rank in (group.rank, group.rank + 1)]
    start, stop = (min(edge * EVALUATION_BATCH, len(rgb)) for edge in edges)
    return EvaluationPairs(rgb.slice(start, stop), thermal.slice(start, stop), start)


def _part(frames: Frames, pairs: EvaluationPairs, count: int) -> Frames:
    """The same part of other frames as `pairs` are of `count`."""
    edges = (pairs.start, pairs.start + len(pairs))
    return frames.slice(*(edge * len(frames) // count for edge in edges))


HIGHER = ("psnr", "ssim", "inception_score")
UNORDERED = ("images", "kid_std")
WIDTH = 120
"""Columns of the table where no terminal says how many it has."""


def describe(found: dict[str, Any]) -> None:
    """Prints the table, with the same measures of what took no training beside it."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    protocol, baselines = found["protocol"], found["baselines"]
    table = Table(
        title=f"{found['model']}, {protocol['images']} pairs of the {found['split']} split",
        caption=f"{protocol['features']} {protocol['weights']}, {protocol['resize']}, "
        f"{protocol['precision']}",
    )
    for column in ("measure", "better", "value", *(name.replace("_", " ") for name in baselines)):
        table.add_column(column, justify="left" if column in ("measure", "better") else "right")
    for name, value in {**found["numbers"], "images": protocol["images"]}.items():
        better = "higher" if name.startswith(HIGHER) else "lower"
        beside = [
            f"{baseline[name]:.4g}" if name in baseline else "" for baseline in baselines.values()
        ]
        table.add_row(name, "" if name.startswith(UNORDERED) else better, f"{value:.6g}", *beside)
    console.print(table)
    metric = found["metric"]
    beats, why = "beats", ""
    if not found["beats_inverted_grey"]:
        beats, why = "does not beat", ": it has learned nothing of heat"
    console.print(
        f"The generator {beats} inverted grey RGB ({metric} {found['numbers'][metric]:.6g} against "
        f"{baselines[TRIVIAL_BASELINE][metric]:.6g}){why}.",
        highlight=False,
    )
