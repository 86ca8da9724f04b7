"""Frames to Parquet shards of raw pixels: one shard is one piece of work, whoever does it."""

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from thermal_search.data.manifest import Kind, Shard, Split, checksum
from thermal_search.preparation.alignment.geometry import Alignment
from thermal_search.preparation.edge_agreement import edge_agreement
from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.resizing import ResizeConfig, Resized, resize
from thermal_search.preparation.verification import Scored
from thermal_search.storage import Location

SHARD_BYTES = 32 * 2**20
SMALLEST_SHARD, LARGEST_SHARD = 16, 1024


@dataclass(frozen=True)
class Chunk:
    """Frames that become one shard."""

    kind: Kind
    split: Split
    number: int
    frames: Sequence[Frame]
    alignments: Mapping[str, Alignment]
    """By recording, of those that have one."""

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.split}-{self.number:05d}"


@dataclass(frozen=True)
class ShardResult:
    """What became of a chunk."""

    shard: Shard
    faults: Sequence[dict[str, str]]
    """Files that could not be used, each with its reason."""

    recordings: dict[str, int]
    """Frames written, by recording."""

    scores: Sequence[dict[str, Any]]
    """Of each pair written, in order, the fields of a `Scored`."""


def chunks(
    frames: Sequence[Frame], recipe: ResizeConfig, alignments: Mapping[str, Alignment]
) -> Iterator[Chunk]:
    order: list[tuple[Kind, Split]] = [
        (kind, part) for kind in ("pairs", "rgb", "thermal") for part in ("train", "val", "test")
    ]
    for kind, part in order:
        chosen = [frame for frame in frames if frame.kind == kind and frame.split == part]
        chosen.sort(key=lambda frame: (frame.recording, frame.name))
        rows = min(max(SHARD_BYTES // row_bytes(kind, recipe), SMALLEST_SHARD), LARGEST_SHARD)
        for number, start in enumerate(range(0, len(chosen), rows)):
            own = chosen[start : start + rows]
            here = {frame.recording for frame in own} & alignments.keys()
            yield Chunk(kind, part, number, own, {name: alignments[name] for name in here})


def row_bytes(kind: Kind, recipe: ResizeConfig) -> int:
    """Bytes of one frame's pixels."""
    rgb, thermal = 3, 1 if recipe.thermal == "8bit" else 2
    pixel = {"pairs": rgb + thermal, "rgb": rgb, "thermal": thermal}[kind]
    return recipe.size * recipe.size * pixel


def make_shard(chunk: Chunk, *, folder: Path, source: Path, recipe: ResizeConfig) -> ShardResult:
    """Writes one shard, or finds it finished by an earlier run. OSError where it cannot be."""
    path, state = folder / f"{chunk.name}.parquet", folder / "state" / f"{chunk.name}.json"
    if finished := _finished(path, state):
        return finished
    resized = [
        resize(frame, recipe, chunk.alignments.get(frame.recording)) for frame in chunk.frames
    ]
    faults = [
        {"file": (item.faulty or source).relative_to(source).as_posix(), "reason": item.fault}
        for item in resized
        if item.fault
    ]
    good = [item for item in resized if not item.fault]
    digest = _write(good, chunk.kind, recipe, path) if good else ""
    recordings: dict[str, int] = {}
    for item in good:
        recordings[item.frame.recording] = recordings.get(item.frame.recording, 0) + 1
    shard = Shard(f"{chunk.name}.parquet", chunk.kind, chunk.split, len(good), digest)
    scores = [asdict(_score(item, recipe)) for item in good] if chunk.kind == "pairs" else []
    written = ShardResult(shard, faults, recordings, scores)
    with _whole(state) as unfinished:
        unfinished.write_text(json.dumps(asdict(written)))
    return written


def part(
    written: Sequence[ShardResult], doubted: Set[tuple[str, str]], folder: Path
) -> list[ShardResult]:
    """The shards without the pairs of these (recording, name), whose frames become ones that have
    no partner, in shards of their own."""
    parted: list[ShardResult] = []
    alone: list[ShardResult] = []
    numbers = Counter((item.shard.kind, item.shard.split) for item in written)
    for item in written:
        keep = [(s["recording"], s["name"]) not in doubted for s in item.scores]
        if all(keep):
            parted.append(item)
            continue
        path, split = folder / item.shard.path, item.shard.split
        table = pq.read_table(path)
        apart = table.filter(pa.array([not kept for kept in keep]))
        kinds: tuple[Kind, Kind] = ("rgb", "thermal")
        for kind, other in (kinds, kinds[::-1]):
            name = f"{kind}/{split}-{numbers[kind, split]:05d}.parquet"
            numbers[kind, split] += 1
            digest = _write_table(apart.drop_columns([other]), folder / name)
            recordings = dict(Counter(apart.column("recording").to_pylist()))
            alone.append(
                ShardResult(Shard(name, kind, split, len(apart), digest), [], recordings, [])
            )
        # Last: whoever finds the pairs whole makes the others again.
        digest = _write_table(table.filter(pa.array(keep)), path) if any(keep) else ""
        scores = [score for score, kept in zip(item.scores, keep, strict=True) if kept]
        recordings = dict(Counter(score["recording"] for score in scores))
        shard = replace(item.shard, rows=sum(keep), sha256=digest)
        parted.append(ShardResult(shard, item.faults, recordings, scores))
    return parted + alone


def _score(item: Resized, recipe: ResizeConfig) -> Scored:
    size = recipe.size
    rgb = np.frombuffer(item.rgb or b"", np.uint8).reshape(3, size, size)
    if recipe.thermal == "8bit":
        thermal = np.frombuffer(item.thermal or b"", np.uint8).reshape(size, size)
    else:
        counts = np.frombuffer(item.thermal or b"", "<u2").reshape(size, size).astype(np.float32)
        spread = max(float(np.ptp(counts)), 1.0)
        thermal = ((counts - counts.min()) * (255 / spread)).astype(np.uint8)
    frame = item.frame
    # Rounded, so that the last bits of a sum cannot differ from machine to machine.
    score = round(edge_agreement(rgb, thermal), 4)
    return Scored(frame.recording, frame.name, frame.pairing, score)


def _finished(path: Path, state: Path) -> ShardResult | None:
    try:
        content = json.loads(state.read_text())
        shard = Shard(**content.pop("shard"))
        if shard.rows and checksum(Location.of(path)) != shard.sha256:
            return None
        return ShardResult(shard=shard, **content)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(rows: Sequence[Resized], kind: Kind, recipe: ResizeConfig, path: Path) -> str:
    """Raw pixels, uncompressed: exact, and read fifty times faster than PNG."""
    columns: dict[str, pa.Array[Any]] = {}
    if kind != "thermal":
        width = row_bytes("rgb", recipe)
        columns["rgb"] = _pixels([row.rgb or b"" for row in rows], width)
    if kind != "rgb":
        width = row_bytes("thermal", recipe)
        columns["thermal"] = _pixels([row.thermal or b"" for row in rows], width)
    columns["recording"] = pa.array([row.frame.recording for row in rows], pa.string())
    columns["name"] = pa.array([row.frame.name for row in rows], pa.string())
    return _write_table(pa.table(columns), path)


def _pixels(rows: Sequence[bytes], width: int) -> pa.FixedSizeBinaryArray:
    # In one go: Arrow takes a third of a millisecond a frame to gather them by itself.
    pixels = pa.py_buffer(b"".join(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pixels])


def _write_table(table: pa.Table, path: Path) -> str:
    with _whole(path) as unfinished:
        pq.write_table(
            table,
            unfinished,
            compression="none",
            use_dictionary=["recording"],  # pyright: ignore[reportArgumentType] - its stub lacks the list
            write_statistics=False,
        )
        with unfinished.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _whole(path: Path) -> Generator[Path]:
    """A file to write to, which takes its place only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.unfinished-{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
