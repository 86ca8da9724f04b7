"""Frames to Parquet shards of raw pixels; one shard is one task of a worker."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from thermal_search.atomic_file import replacing
from thermal_search.data.manifest import FrameKind, Shard, Split, UnusableFile, checksum
from thermal_search.documents import Section
from thermal_search.errors import printable
from thermal_search.preparation.alignment.geometry import Alignment
from thermal_search.preparation.conversion import ConvertedFrame, convert_frame
from thermal_search.preparation.edge_agreement import edge_agreement
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.near_duplicates import thumbnail
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.verification import ScoredPair
from thermal_search.storage import Location

STATE = "state"
"""Folder of what finished tasks report, by which an interrupted run resumes."""

SHARD_BYTES = 32 * 2**20
MIN_ROWS, MAX_ROWS = 16, 1024


@dataclass(frozen=True)
class ShardTask:
    """Frames that become one shard."""

    kind: FrameKind
    split: Split
    number: int
    frames: Sequence[SourceFrame]
    alignments: Mapping[str, Alignment]
    """By recording, of the recordings that have one."""

    @property
    def name(self) -> str:
        return f"{self.kind}/{self.split}-{self.number:05d}"


class ShardResult(Section):
    """What a task wrote, and which of its frames it could not use."""

    path: str
    """Relative to the dataset's folder."""

    kind: FrameKind
    split: Split
    rows: int
    """0 if no frame could be used: there is no file then."""

    sha256: str
    unusable_files: list[UnusableFile]
    recordings: dict[str, int]
    """Frames written, by recording."""

    scores: list[ScoredPair]
    """One for each pair, in the order of the rows."""

    @property
    def shard(self) -> Shard:
        return Shard(
            path=self.path, kind=self.kind, split=self.split, rows=self.rows, sha256=self.sha256
        )


def plan_shards(
    frames: Sequence[SourceFrame],
    settings: PreparationSettings,
    alignments: Mapping[str, Alignment],
) -> Iterator[ShardTask]:
    """Every frame in one task, sorted by recording and time within its kind and split."""
    order: list[tuple[FrameKind, Split]] = [
        (kind, split) for kind in ("pairs", "rgb", "thermal") for split in ("train", "val", "test")
    ]
    for kind, split in order:
        chosen = [frame for frame in frames if frame.kind == kind and frame.split == split]
        chosen.sort(key=lambda frame: (frame.recording, frame.moment))
        rows = min(max(SHARD_BYTES // row_bytes(kind, settings), MIN_ROWS), MAX_ROWS)
        for number, start in enumerate(range(0, len(chosen), rows)):
            members = chosen[start : start + rows]
            aligned = {frame.recording for frame in members} & alignments.keys()
            own_alignments = {name: alignments[name] for name in aligned}
            yield ShardTask(kind, split, number, members, own_alignments)


def row_bytes(kind: FrameKind, settings: PreparationSettings) -> int:
    """Bytes of one frame's pixels."""
    rgb, thermal = 3, 1 if settings.thermal == "8bit" else 2
    pixel = {"pairs": rgb + thermal, "rgb": rgb, "thermal": thermal}[kind]
    return settings.size * settings.size * pixel


def make_shard(
    task: ShardTask, *, folder: Path, source: Path, settings: PreparationSettings
) -> ShardResult:
    """Writes one shard, unless an earlier run has finished it. Raises OSError."""
    path, state = folder / f"{task.name}.parquet", folder / STATE / f"{task.name}.json"
    if finished := _finished(path, state):
        return finished
    converted = [
        convert_frame(frame, settings, task.alignments.get(frame.recording))
        for frame in task.frames
    ]
    usable = [frame for frame in converted if not frame.fault]
    sha256 = _write_frames(usable, task.kind, settings, path) if usable else ""
    result = ShardResult(
        path=f"{task.name}.parquet",
        kind=task.kind,
        split=task.split,
        rows=len(usable),
        sha256=sha256,
        unusable_files=[
            UnusableFile(
                file=printable((frame.faulty_file or source).relative_to(source).as_posix()),
                reason=printable(frame.fault),
            )
            for frame in converted
            if frame.fault
        ],
        recordings=dict(Counter(frame.frame.recording for frame in usable)),
        scores=[_scored(frame, settings) for frame in usable] if task.kind == "pairs" else [],
    )
    with replacing(state) as file:
        file.write(result.model_dump_json().encode())
    return result


def split_rejected_pairs(
    results: Sequence[ShardResult], rejected: Set[tuple[str, str]], folder: Path
) -> list[ShardResult]:
    """Takes the pairs of these (recording, name) out of their shards.

    Their images become frames without a partner, in shards of their own.
    """
    kept_results: list[ShardResult] = []
    unpaired_results: list[ShardResult] = []
    numbers = Counter((result.kind, result.split) for result in results)
    for result in results:
        keep = [(score.recording, score.name) not in rejected for score in result.scores]
        if all(keep):
            kept_results.append(result)
            continue
        path = folder / result.path
        table = pq.read_table(path)
        unpaired = table.filter(pa.array([not kept for kept in keep]))
        kinds: tuple[FrameKind, FrameKind] = ("rgb", "thermal")
        for kind, other in (kinds, kinds[::-1]):
            name = f"{kind}/{result.split}-{numbers[kind, result.split]:05d}.parquet"
            numbers[kind, result.split] += 1
            sha256 = _write_table(unpaired.drop_columns([other]), folder / name)
            unpaired_results.append(
                ShardResult(
                    path=name,
                    kind=kind,
                    split=result.split,
                    rows=len(unpaired),
                    sha256=sha256,
                    unusable_files=[],
                    recordings=dict(Counter(unpaired.column("recording").to_pylist())),
                    scores=[],
                )
            )
        # Last: a run that finds the pairs unchanged writes the unpaired shards again.
        sha256 = _write_table(table.filter(pa.array(keep)), path) if any(keep) else ""
        scores = [score for score, kept in zip(result.scores, keep, strict=True) if kept]
        kept_results.append(
            result.model_copy(
                update={
                    "rows": sum(keep),
                    "sha256": sha256,
                    "recordings": dict(Counter(score.recording for score in scores)),
                    "scores": scores,
                }
            )
        )
    return kept_results + unpaired_results


def _scored(converted: ConvertedFrame, settings: PreparationSettings) -> ScoredPair:
    size = settings.size
    rgb = np.frombuffer(converted.rgb or b"", np.uint8).reshape(3, size, size)
    thermal_bytes = converted.thermal or b""
    if settings.thermal == "8bit":
        thermal = np.frombuffer(thermal_bytes, np.uint8).reshape(size, size)
    else:
        counts = np.frombuffer(thermal_bytes, "<u2").reshape(size, size).astype(np.float32)
        span = max(float(np.ptp(counts)), 1.0)
        thermal = ((counts - counts.min()) * (255 / span)).astype(np.uint8)
    frame = converted.frame
    # Rounded, so that the last bits of a sum do not make machines differ.
    score = round(edge_agreement(rgb, thermal), 4)
    return ScoredPair(frame.recording, frame.name, frame.pairing, score, thumbnail(rgb, thermal))


def _finished(path: Path, state: Path) -> ShardResult | None:
    """What an earlier run reported; None if it did not finish, or the shard is damaged."""
    try:
        result = ShardResult.model_validate_json(state.read_bytes(), strict=True)
        if result.rows and checksum(Location.of(path)) != result.sha256:
            return None
        return result
    except (OSError, ValidationError):
        return None


def _write_frames(
    frames: Sequence[ConvertedFrame], kind: FrameKind, settings: PreparationSettings, path: Path
) -> str:
    """Writes raw pixels, uncompressed: exact, and read fifty times faster than PNG.

    Returns the file's SHA-256.
    """
    columns: dict[str, pa.Array[Any]] = {}
    if kind != "thermal":
        width = row_bytes("rgb", settings)
        columns["rgb"] = _pixel_column([frame.rgb or b"" for frame in frames], width)
    if kind != "rgb":
        width = row_bytes("thermal", settings)
        columns["thermal"] = _pixel_column([frame.thermal or b"" for frame in frames], width)
    columns["recording"] = pa.array([frame.frame.recording for frame in frames], pa.string())
    columns["name"] = pa.array([frame.frame.name for frame in frames], pa.string())
    return _write_table(pa.table(columns), path)


def _pixel_column(rows: Sequence[bytes], width: int) -> pa.FixedSizeBinaryArray:
    # Joined first: Arrow takes a third of a millisecond per frame to gather them itself.
    pixels = pa.py_buffer(b"".join(rows))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), [None, pixels])


def _write_table(table: pa.Table, path: Path) -> str:
    with replacing(path) as file:
        pq.write_table(
            table,
            file,
            compression="none",
            use_dictionary=["recording"],  # pyright: ignore[reportArgumentType] - its stub lacks the list
            write_statistics=False,
        )
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType] - files can do more than BinaryIO promises
