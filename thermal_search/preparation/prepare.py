"""From a recording to a prepared dataset, which appears whole or not at all.

Everything is written to OUTPUT.partial and renamed at the end. A run that was stopped, even killed,
goes on where it was: a shard that is finished, of the same plan, is not made again, and the result
is the same to the byte.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thermal_search.data.manifest import FILE, Manifest, Shard, read_manifest
from thermal_search.errors import DatasetError
from thermal_search.images import to_pixels
from thermal_search.preparation.alignment.contact_sheet import draw_sheet
from thermal_search.preparation.alignment.estimation import Found
from thermal_search.preparation.alignment.estimation import align as align_recordings
from thermal_search.preparation.alignment.geometry import FLIR_V2_DEGREES, Alignment
from thermal_search.preparation.alignment.modes import choose, settle
from thermal_search.preparation.decoding import Pixels
from thermal_search.preparation.layouts import Frame, read_layout
from thermal_search.preparation.pool import Workers, open_pool
from thermal_search.preparation.radiometry import FLIR_SCALE, Scale
from thermal_search.preparation.resizing import Depth, ResizeConfig
from thermal_search.preparation.shards import ShardResult, chunks, make_shard, part
from thermal_search.preparation.splits import SHARES, Shares, split, subsample
from thermal_search.preparation.verification import Scored, doubtful, quantiles, suspects
from thermal_search.storage import Location

PREVIEW_PAIRS = 6
PLAN, STATE, PREVIEW = "preparation.json", "state", "preview.png"
SHEET = "alignment.png"


@dataclass(frozen=True)
class _Plan:
    """What decides every byte of the output; a partial folder of another plan is not resumed."""

    layout: str
    recipe: dict[str, Any]
    frames: str
    """A hash of the frames' files, sizes and times."""


def prepare(
    source: Path,
    output: Path,
    *,
    size: int = 256,
    layout: str = "auto",
    align: str = "none",
    fields_of_view: tuple[float, float] = FLIR_V2_DEGREES,
    preview: bool = False,
    thermal: Depth = "8bit",
    scale: Scale = FLIR_SCALE,
    filter: str = "bicubic",
    fast: bool = False,
    splits: Shares = SHARES,
    seed: int = 0,
    every: int = 1,
    official_only: bool = False,
    max_bad: float = 0.05,
    workers: int | None = None,
    address: str | None = None,
) -> Manifest:
    """Writes the dataset and returns its manifest; DatasetError where it cannot be had.

    `size` is a power of two from 32 to 1024; `align` a way of `alignment.choice`, with `preview` a
    contact sheet to judge it by; `thermal` which depth is kept, and `scale` what the 16-bit counts
    mean; `splits` and `seed` say how recordings are dealt out; of each recording every `every`-th
    frame is taken; with `official_only` no pair is recovered; `max_bad` is the share of files that
    may be unusable; `address` that of a Ray cluster whose machines share the disk, to use all its
    cores.
    """
    if not 32 <= size <= 1024 or size & (size - 1):
        raise DatasetError(f"--size must be a power of two from 32 to 1024, but is {size}.")
    if not 0 <= max_bad < 1:
        raise DatasetError(f"--max-bad must be from 0 to below 1, but is {max_bad}.")
    recipe = ResizeConfig(size=size, filter=filter, thermal=thermal, fast=fast)
    given = choose(align, fields_of_view)
    layout, found = read_layout(source, layout, official_only=official_only)
    frames, notes = split(subsample(found.frames, every), splits, seed)
    told = {name: asdict(alignment) for name, alignment in (given or {}).items()}
    ways = {"align": align, "given": told, "preview": preview, "scale": asdict(scale)}
    # As JSON gives it back: the plan is compared with what was written.
    ways = json.loads(json.dumps(ways))
    plan = _Plan(layout, asdict(recipe) | ways, _fingerprint(frames))
    if output.exists():
        return _existing(output, plan)
    folder = output.with_name(f"{output.name}.partial")
    try:
        with _claim(folder, plan):
            if output.exists():  # another run has finished it since we looked
                shutil.rmtree(folder)
                return _existing(output, plan)
            left_out = [{"file": file, "reason": reason} for file, reason in found.left_out]
            with open_pool(workers, address) as pool:
                found_alignments: list[Found] = []
                alignments: Mapping[str, Alignment] = {}
                if align != "none" or preview:
                    found_alignments = _align(frames, given, size, pool)
                    settled, remarks = settle(found_alignments, align)
                    notes += remarks
                    alignments = {} if align == "none" else settled
                    if preview:
                        draw_sheet(frames, settled, folder / SHEET)
                written = _make_shards(frames, folder, source, recipe, alignments, pool)
            left_out += [fault for item in written for fault in item.faults]
            _check_limit(source, left_out, len(frames) + len(found.left_out), max_bad)
            dropped = doubtful(_scored(written))
            doubted = {(item.pair.recording, item.pair.name) for item in dropped}
            written = part(written, doubted, folder)
            shards = [item.shard for item in written if item.shard.rows]
            if doubted and not any((s.kind, s.split) == ("pairs", "val") for s in shards):
                raise DatasetError(
                    f"{source}: no pair that was recovered for its val split shows one scene: pass "
                    "--official-only, and the official pairs are dealt out instead."
                )
            if suspected := suspects(_scored(written)):
                notes.append(
                    f"In {len(suspected)} recordings the edges of RGB and thermal agree no better "
                    f"than in wrong pairs (first: {suspected[0]}): look at them."
                )
            manifest = Manifest(
                folder=Location.of(folder),
                source=source.resolve().name,
                layout=layout,
                size=size,
                filter=filter,
                temperatures=scale.of(folder, written) if thermal == "16bit" else None,
                alignment=_told(align, found_alignments),
                recordings=_recordings(written),
                left_out=left_out,
                dropped_pairs=[{**asdict(item.pair), "reason": item.reason} for item in dropped],
                notes=[*found.notes, *notes],
                shards=shards,
            )
            manifest.save()
            read_manifest(folder)  # refuses what a search would refuse
            _draw_preview(manifest)
            _tidy(folder, manifest.shards)
            folder.rename(output)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}): make room, "
            "or mend it. The same command goes on where it was."
        ) from None
    return read_manifest(output)


def _make_shards(
    frames: Sequence[Frame],
    folder: Path,
    source: Path,
    recipe: ResizeConfig,
    alignments: Mapping[str, Alignment],
    pool: Workers,
) -> list[ShardResult]:
    make = partial(make_shard, folder=folder.absolute(), source=source.absolute(), recipe=recipe)
    written: list[ShardResult] = []
    with _progress() as progress:
        task = progress.add_task("Resizing", total=len(frames))
        for item in pool.map(make, chunks(frames, recipe, alignments)):
            written.append(item)
            progress.advance(task, item.shard.rows + len(item.faults))
    return written


def _align(
    frames: Sequence[Frame], given: Mapping[str, Alignment] | None, size: int, pool: Workers
) -> list[Found]:
    total = len({frame.recording for frame in frames if frame.kind == "pairs"})
    with _progress() as progress:
        return list(
            progress.track(
                align_recordings(frames, given, size, pool), total, description="Aligning"
            )
        )


def _told(align: str, found: Sequence[Found]) -> dict[str, Any]:
    return {"way": align, "recordings": {item.recording: item.told() for item in found}}


def _fingerprint(frames: Sequence[Frame]) -> str:
    hashed = hashlib.sha256()
    for frame in frames:
        for path in (frame.rgb, frame.thermal, frame.radiometric):
            if path:
                status = path.stat()
                told = f"{path.name} {status.st_size} {status.st_mtime_ns} {frame.recording}"
                told += f" {frame.split} {frame.pairing} {frame.rgb_side}"
                hashed.update(told.encode())
    return hashed.hexdigest()


def _existing(output: Path, plan: _Plan) -> Manifest:
    try:
        same = json.loads((output / PLAN).read_text()) == asdict(plan)
    except (OSError, ValueError):
        same = False
    if not same:
        raise DatasetError(
            f"{output} exists and is not this dataset at this size: choose another folder, or "
            "delete it first."
        )
    return read_manifest(output)


@contextlib.contextmanager
def _claim(folder: Path, plan: _Plan) -> Generator[None]:
    """Takes a partial folder up again if it is of the same plan, alone; else starts clean."""
    file = folder / PLAN
    unfinished = folder / f"{PLAN}.unfinished"
    if folder.exists() and set(folder.iterdir()) - {unfinished} and not file.exists():
        raise DatasetError(f"{folder} is in the way: it is not of our making. Move it elsewhere.")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        try:
            same = json.loads(file.read_text()) == asdict(plan)
        except (OSError, ValueError):
            same = False
        if not same:
            for path in folder.iterdir():
                if path != file:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            unfinished.write_text(json.dumps(asdict(plan)))
            unfinished.replace(file)
        yield


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    # The lock is the folder itself: it leaves no file behind, and ends with its process.
    finished = DatasetError(f"{folder}: another run has just finished it. Try again.")
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise finished from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{folder}: another run is at work on it. Let it finish.") from None
        # The name may have gone to another folder, or to none, while we opened it.
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise finished
        yield
    finally:
        os.close(descriptor)


def _tidy(folder: Path, shards: Sequence[Shard]) -> None:
    """Leaves what the dataset is made of and nothing else, whatever a killed run left behind."""
    keep = {folder / name for name in (FILE, PLAN, PREVIEW, SHEET)}
    keep |= {folder / shard.path for shard in shards}
    shutil.rmtree(folder / STATE)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in keep:
            path.unlink()


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


def _scored(written: Sequence[ShardResult]) -> list[Scored]:
    return [Scored(**score) for item in written for score in item.scores]


def _recordings(written: Sequence[ShardResult]) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = {}
    agreement = quantiles(_scored(written))
    for item in written:
        for name, count in sorted(item.recordings.items()):
            shard = item.shard
            entry = told.setdefault(f"{name} ({shard.kind})", {"split": shard.split, "frames": 0})
            entry["frames"] += count
            if shard.kind == "pairs":
                entry |= agreement[name]
    return told


def _draw_preview(manifest: Manifest) -> None:
    """A few pairs side by side, RGB above thermal, from all over a split."""
    size = manifest.size
    split = "train" if manifest.count("pairs", "train") else "val"
    paths = manifest.shard_paths("pairs", split)
    total = manifest.count("pairs", split)
    count = min(PREVIEW_PAIRS, total)
    canvas = Image.new("RGB", (count * size, 2 * size))
    for column in range(count):
        row = _row(paths, column * total // count)
        planes = np.frombuffer(row["rgb"], np.uint8).reshape(3, size, size)
        rgb = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        thermal = Image.fromarray(_grey(row["thermal"], manifest))
        canvas.paste(rgb, (column * size, 0))
        canvas.paste(thermal, (column * size, size))
    canvas.save(manifest.folder / PREVIEW)


def _grey(thermal: bytes, manifest: Manifest) -> Pixels:
    shape = (manifest.size, manifest.size)
    if not manifest.temperatures:
        return np.frombuffer(thermal, np.uint8).reshape(shape)
    counts = torch.from_numpy(np.frombuffer(thermal, "<u2").reshape(shape).astype(np.uint16))
    return to_pixels(manifest.temperatures.images(counts)).numpy()


def _row(paths: Sequence[Location], number: int) -> dict[str, Any]:
    for path in paths:
        rows = pq.read_metadata(path).num_rows
        if number < rows:
            return pq.read_table(path).slice(number, 1).to_pylist()[0]
        number -= rows
    raise AssertionError("no such row")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
    )
