"""`thermal-search evaluate`: an exported generator, judged on a dataset with the whole table."""

import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import UInt8
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from torch.multiprocessing.spawn import ProcessExitedException, spawn

from thermal_search import export
from thermal_search.dataset.frames import EVALUATION_BATCH, Frames, JudgedFrames
from thermal_search.dataset.manifest import Manifest, Split, read_manifest
from thermal_search.dataset.stored import read_pairs
from thermal_search.errors import DatasetError, MetricError, SearchError, ThermalSearchError
from thermal_search.metrics import (
    FeaturesPrecision,
    PerceptualDistance,
    build_extractor,
    metric_name,
    reference_file,
)
from thermal_search.storage import Location
from thermal_search.training.evaluation import Judge, real_statistics
from thermal_search.training.group import Group


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


def evaluate(request: Request) -> dict[str, Any]:
    """Judges an exported generator as a search judges its trials; the table as plain values.

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
        place = Path(folder)
        if request.workers == 1:
            _judge(0, request, place)
        else:
            _judge_together(request, place)
        return json.loads((place / "found.json").read_text())


def _judge_together(request: Request, place: Path) -> None:
    try:
        spawn(_work, (request, place), nprocs=request.workers)
    except ProcessExitedException:
        if not (place / "error").exists():
            raise
        raise MetricError((place / "error").read_text()) from None


def _work(rank: int, request: Request, place: Path) -> None:
    torch.set_num_threads(max((os.cpu_count() or 1) // request.workers, 1))
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=request.workers
    )
    try:
        _judge(rank, request, place)
    except ThermalSearchError as error:
        (place / "error").write_text(str(error))
        # The others wait for this one: whoever started them ends them all.
        sys.exit(1)
    dist.destroy_process_group()


def _judge(rank: int, request: Request, place: Path) -> None:
    manifest = read_manifest(request.data)
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", rank % torch.cuda.device_count())
    group = Group()
    translator = export.load(request.model).to(device)
    extractor = build_extractor(
        request.features,
        inception_weights=request.inception_weights,
        precision=request.features_precision,
        device=device,
    )
    weights = request.lpips_weights
    perceptual = PerceptualDistance(weights, device) if weights else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not group.leads
    )
    with progress:
        share, start = _share(manifest, request.split, group)
        count = manifest.count("pairs", request.split)
        file = reference_file(manifest.folder, extractor, request.split, count)
        real = real_statistics(file, share[1], extractor, group)
        task = progress.add_task("Judging", total=len(share[0]))
        watched = _Watched(share[0], lambda pairs: progress.advance(task, pairs))
        pairs = JudgedFrames(watched, share[1], start)
        judge = Judge(pairs, extractor, real, group, device, perceptual)
        found = judge.evaluate(translator, place / "grid.png")
    if group.leads:
        content = {
            "model": request.model.name,
            "architecture": type(translator).__name__,
            "dataset": manifest.digest,
            "split": request.split,
            "metric": extractor.metric,
            "protocol": judge.full_protocol,
            "numbers": {extractor.metric: found.score, **found.beside},
        }
        (place / "found.json").write_text(json.dumps(content))


def _share(manifest: Manifest, split: Split, group: Group) -> tuple[tuple[Frames, Frames], int]:
    """This worker's run of the split's pairs, from a multiple of a batch on, and its start."""
    rgb, thermal = read_pairs(manifest, split)
    batches = math.ceil(len(rgb) / EVALUATION_BATCH)
    edges = [math.ceil(batches * rank / group.size) for rank in (group.rank, group.rank + 1)]
    start, stop = (min(edge * EVALUATION_BATCH, len(rgb)) for edge in edges)
    return (rgb.part(start, stop), thermal.part(start, stop)), start


class _Watched(Frames):
    """Frames that tell how many of them were taken."""

    def __init__(self, frames: Frames, advance: Callable[[int], None]) -> None:
        size, _, channels = frames.shape
        super().__init__(frames.blocks, size=size, channels=channels)
        self.advance = advance

    def take(self, numbers: Iterable[int]) -> UInt8[Tensor, "count channels size size"]:
        numbers = list(numbers)
        self.advance(len(numbers))
        return super().take(numbers)


HIGHER = ("psnr", "ssim", "inception_score")


def describe(found: dict[str, Any]) -> None:
    """Prints the table."""
    protocol = found["protocol"]
    table = Table(
        title=f"{found['model']}, {protocol['images']} pairs of the {found['split']} split",
        caption=f"{protocol['features']} {protocol['weights']}, {protocol['resize']}, "
        f"{protocol['precision']}",
    )
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("better")
    for name, value in found["numbers"].items():
        better = "higher" if name.startswith(HIGHER) else "lower"
        table.add_row(name, f"{value:.6g}", "" if name.startswith("kid_std") else better)
    Console().print(table)
