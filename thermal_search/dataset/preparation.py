"""From a recording to a prepared dataset, which appears whole or not at all.

Everything is written to OUTPUT.partial and renamed at the end. A run that was stopped goes on where
it was: a shard that is finished, of the same plan, is not made again.
"""

import hashlib
import json
import multiprocessing
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thermal_search.dataset.layouts import Frame, read_layout
from thermal_search.dataset.manifest import (
    Kind,
    Manifest,
    Shard,
    Split,
    checksum,
    read_manifest,
)
from thermal_search.dataset.resizing import Resized, resize
from thermal_search.dataset.splits import split
from thermal_search.errors import DatasetError

SHARD_BYTES = 64 * 2**20
SMALLEST_SHARD, LARGEST_SHARD = 16, 1024
PREVIEW_PAIRS = 6


@dataclass(frozen=True)
class _Plan:
    """What decides every byte of the output; a partial folder of another plan is not resumed."""

    layout: str
    size: int
    filter: str
    frames: str
    """A hash of the frames' files, sizes and times."""


def prepare(
    source: Path,
    output: Path,
    *,
    size: int = 256,
    layout: str = "auto",
    filter: str = "bicubic",
    max_bad: float = 0.05,
    workers: int | None = None,
) -> Manifest:
    """Writes the dataset and returns its manifest; DatasetError where it cannot be had.

    `size` is a power of two from 32 to 1024; `max_bad` the share of files that may be unusable.
    """
    if not 32 <= size <= 1024 or size & (size - 1):
        raise DatasetError(f"--size must be a power of two from 32 to 1024, but is {size}.")
    if not 0 <= max_bad < 1:
        raise DatasetError(f"--max-bad must be from 0 to below 1, but is {max_bad}.")
    layout, found = read_layout(source, layout)
    frames, notes = split(found.frames)
    plan = _Plan(layout, size, filter, _fingerprint(frames))
    if output.exists():
        return _existing(output, plan)
    folder = output.with_name(f"{output.name}.partial")
    _claim(folder, plan)
    left_out = [{"file": file, "reason": reason} for file, reason in found.left_out]
    shards: list[Shard] = []
    with _progress() as progress, _pool(workers) as pool:
        task = progress.add_task("Resizing", total=len(frames))
        for chunk in _chunks(frames, size):
            shard, faults = _shard(chunk, folder, size, filter, pool, source)
            left_out += faults
            shards += [shard] if shard.rows else []
            progress.advance(task, len(chunk.frames))
    _check_limit(source, left_out, len(frames) + len(found.left_out), max_bad)
    manifest = Manifest(
        folder=folder,
        source=source.resolve().name,
        layout=layout,
        size=size,
        filter=filter,
        recordings=_recordings(folder, shards),
        left_out=left_out,
        notes=notes,
        shards=shards,
    )
    _draw_preview(manifest)
    shutil.rmtree(folder / "state")
    manifest.save()
    read_manifest(folder)  # refuses what a search would refuse
    (folder / "plan.json").rename(folder / "preparation.json")
    folder.rename(output)
    return read_manifest(output)


@dataclass(frozen=True)
class _Chunk:
    """Frames that become one shard."""

    kind: Kind
    split: Split
    number: int
    frames: Sequence[Frame]

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.split}-{self.number:05d}"


def _chunks(frames: Sequence[Frame], size: int) -> Iterator[_Chunk]:
    order: list[tuple[Kind, Split]] = [
        (kind, part) for kind in ("pairs", "rgb", "thermal") for part in ("train", "val", "test")
    ]
    for kind, part in order:
        chosen = [frame for frame in frames if frame.kind == kind and frame.split == part]
        chosen.sort(key=lambda frame: (frame.recording, frame.name))
        row = size * size * {"pairs": 4, "rgb": 3, "thermal": 1}[kind]
        rows = min(max(SHARD_BYTES // row, SMALLEST_SHARD), LARGEST_SHARD)
        for number, start in enumerate(range(0, len(chosen), rows)):
            yield _Chunk(kind, part, number, chosen[start : start + rows])


def _shard(
    chunk: _Chunk, folder: Path, size: int, filter: str, pool: ProcessPoolExecutor, source: Path
) -> tuple[Shard, list[dict[str, str]]]:
    """Writes one shard, or finds it finished by an earlier run."""
    path, state = folder / f"{chunk.name}.parquet", folder / "state" / f"{chunk.name}.json"
    if state.exists() and path.exists():
        content = json.loads(state.read_text())
        shard = Shard(**content["shard"])
        if checksum(path) == shard.sha256:
            return shard, content["faults"]
    resized = list(pool.map(partial(resize, size=size, filter=filter), chunk.frames, chunksize=8))
    faults = [
        {"file": (item.faulty or source).relative_to(source).as_posix(), "reason": item.fault}
        for item in resized
        if item.fault
    ]
    good = [item for item in resized if not item.fault]
    digest = _write(good, chunk.kind, size, path) if good else ""
    shard = Shard(f"{chunk.name}.parquet", chunk.kind, chunk.split, len(good), digest)
    state.parent.mkdir(parents=True, exist_ok=True)
    unfinished = state.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"shard": asdict(shard), "faults": faults}))
    unfinished.replace(state)
    return shard, faults


def _write(rows: Sequence[Resized], kind: Kind, size: int, path: Path) -> str:
    """Raw pixels, uncompressed: exact, and read fifty times faster than PNG."""
    columns: dict[str, pa.Array[Any]] = {}
    if kind != "thermal":
        columns["rgb"] = pa.array([row.rgb for row in rows], pa.binary(size * size * 3))
    if kind != "rgb":
        columns["thermal"] = pa.array([row.thermal for row in rows], pa.binary(size * size))
    columns["recording"] = pa.array([row.frame.recording for row in rows], pa.string())
    columns["name"] = pa.array([row.frame.name for row in rows], pa.string())
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(
        pa.table(columns),
        unfinished,
        compression="none",
        use_dictionary=["recording"],  # pyright: ignore[reportArgumentType] - its stub lacks the list
        write_statistics=False,
    )
    digest = checksum(unfinished)
    unfinished.replace(path)
    return digest


def _fingerprint(frames: Sequence[Frame]) -> str:
    hashed = hashlib.sha256()
    for frame in frames:
        for path in (frame.rgb, frame.thermal):
            if path:
                status = path.stat()
                told = f"{path.name} {status.st_size} {status.st_mtime_ns} {frame.recording}"
                hashed.update(told.encode())
    return hashed.hexdigest()


def _existing(output: Path, plan: _Plan) -> Manifest:
    try:
        same = json.loads((output / "preparation.json").read_text()) == asdict(plan)
    except (OSError, ValueError):
        same = False
    if not same:
        raise DatasetError(
            f"{output} exists and is not this dataset at this size: choose another folder, or "
            "delete it first."
        )
    return read_manifest(output)


def _claim(folder: Path, plan: _Plan) -> None:
    """Takes a partial folder up again if it is of the same plan; else starts clean."""
    file = folder / "plan.json"
    try:
        if json.loads(file.read_text()) == asdict(plan):
            return
    except (OSError, ValueError):
        pass
    if folder.exists() and any(folder.iterdir()) and not file.exists():
        raise DatasetError(f"{folder} is in the way: it is not of our making. Move it elsewhere.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    file.write_text(json.dumps(asdict(plan)))


def _check_limit(
    source: Path, left_out: Sequence[dict[str, str]], total: int, max_bad: float
) -> None:
    if len(left_out) > max_bad * total:
        reasons = Counter(item["reason"].split(" (")[0].split(":")[0] for item in left_out)
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        first = left_out[0]
        raise DatasetError(
            f"{source}: {len(left_out)} of {total} frames cannot be used ({told}; first: "
            f"{first['file']}, {first['reason']}), more than the {max_bad:.0%} allowed: mend "
            "them, or pass a larger --max-bad."
        )


def _recordings(folder: Path, shards: Sequence[Shard]) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {}
    for shard in shards:
        names = pq.read_table(folder / shard.path, columns=["recording"])["recording"].to_pylist()
        for name, count in sorted(Counter(names).items()):
            entry = told.setdefault(f"{name} ({shard.kind})", {"split": shard.split, "frames": 0})
            entry["frames"] += count
    return told


def _draw_preview(manifest: Manifest) -> None:
    """A few pairs side by side, RGB above thermal, from all over the training split."""
    size = manifest.size
    tables = [pq.read_table(p) for p in manifest.shard_paths("pairs", "train")]
    table = pa.concat_tables(tables)
    count = min(PREVIEW_PAIRS, len(table))
    canvas = Image.new("RGB", (count * size, 2 * size))
    for column in range(count):
        row = table.slice(column * len(table) // count, 1).to_pylist()[0]
        rgb = Image.frombytes("RGB", (size, size), row["rgb"])
        thermal = Image.frombytes("L", (size, size), row["thermal"])
        canvas.paste(rgb, (column * size, 0))
        canvas.paste(thermal, (column * size, size))
    canvas.save(manifest.folder / "preview.png")


def _pool(workers: int | None) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
    )
