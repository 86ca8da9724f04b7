"""Prepared shards in Ray Data: read once, kept in the object store, dealt out to the workers.

Rows are raw pixels, so a worker reads them straight from shared memory, in any order and without a
copy: an epoch costs nothing to start, and its order is a pure function of the trial's seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa
import ray
import ray.data
from ray.data.dataset import MaterializedDataset

from thermal_search.data.frames import EVALUATION_BATCH, EvaluationPairs, Frames, WorkerFrames
from thermal_search.data.manifest import Kind, Manifest, Split
from thermal_search.data.parquet import Column, frames_of
from thermal_search.images import Temperatures

Part = Literal["pairs", "rgb", "thermal", "validation", "test"]
EVALUATED: set[Part] = {"validation", "test"}


@dataclass(frozen=True)
class Share:
    """What one worker reads, small enough to travel: references, not pixels."""

    size: int
    temperatures: Temperatures | None
    blocks: Mapping[Part, Sequence[Any]]
    """References to Arrow tables in the object store."""

    starts: Mapping[Part, int]
    """Number of the share's first pair among those of all workers, of the parts that are judged."""


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset in the object store. The process that loaded it must outlive its readers."""

    size: int
    temperatures: Temperatures | None
    parts: Mapping[Part, MaterializedDataset[Any]]
    copies: list[pa.Table] = field(default_factory=list[pa.Table])
    """Every block that was shared, mapped into this process."""

    def share(self, workers: int) -> list[Share]:
        """Deals every row to exactly one of `workers` workers, in contiguous runs."""
        blocks: list[dict[Part, Sequence[Any]]] = [{} for _ in range(workers)]
        starts: list[dict[Part, int]] = [{} for _ in range(workers)]
        for part, dataset in self.parts.items():
            multiple = EVALUATION_BATCH if part in EVALUATED else 1
            cuts = _cuts(dataset.count(), workers, multiple)
            pieces = dataset.split_at_indices(cuts) if cuts else [dataset]
            for own, piece in zip(blocks, pieces, strict=True):
                own[part] = list(piece.to_arrow_refs())
                # As long as it is mapped here, a copy stays on this machine, and the loss of
                # another one takes no block away. Without it Ray would have to compute lost blocks
                # again, and wait for ever for CPUs that the slots hold.
                self.copies.extend(ray.get(own[part]))
            for own, start in zip(starts, [0, *cuts], strict=True):
                own[part] = start
        return [
            Share(self.size, self.temperatures, blocks=own, starts=own_starts)
            for own, own_starts in zip(blocks, starts, strict=True)
        ]


def load(manifest: Manifest, *, with_test: bool = False) -> LoadedDataset:
    """Reads the training split (pairs and stills) and the validation pairs of a dataset, and the
    test pairs only where they are asked for."""
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # The second reader starts 32 processes for every read, however small.
    context.use_datasource_v2 = False
    wanted: list[tuple[Part, Kind, Split]] = [
        ("pairs", "pairs", "train"),
        ("rgb", "rgb", "train"),
        ("thermal", "thermal", "train"),
        ("validation", "pairs", "val"),
        *([("test", "pairs", "test")] if with_test else []),
    ]
    parts: dict[Part, MaterializedDataset[Any]] = {}
    for part, kind, split in wanted:
        if shards := manifest.shard_paths(kind, split):
            columns = ["rgb", "thermal"] if kind == "pairs" else [kind]
            dataset = ray.data.read_parquet(
                [shard.path for shard in shards],
                columns=columns,
                filesystem=manifest.folder.filesystem,
            )
            parts[part] = dataset.materialize()
    return LoadedDataset(manifest.size, manifest.temperatures, parts)


def open_share(share: Share) -> WorkerFrames:
    """A worker's frames, over shared memory; blocks of other nodes are fetched once."""
    pairs = _frames(share, "pairs", "rgb"), _frames(share, "pairs", "thermal")
    return WorkerFrames(
        size=share.size,
        paired=pairs,
        unpaired=(
            pairs[0] + _frames(share, "rgb", "rgb"),
            pairs[1] + _frames(share, "thermal", "thermal"),
        ),
        validation=_judged(share, "validation"),
        test=_judged(share, "test"),
    )


def _judged(share: Share, part: Part) -> EvaluationPairs:
    rgb, thermal = _frames(share, part, "rgb"), _frames(share, part, "thermal")
    return EvaluationPairs(rgb, thermal, share.starts.get(part, 0))


def _frames(share: Share, part: Part, column: Column) -> Frames:
    tables: list[pa.Table] = ray.get(list(share.blocks.get(part, [])))
    return frames_of(tables, column, share.size, share.temperatures)


def _cuts(rows: int, workers: int, multiple: int) -> list[int]:
    # Rounded up: where there is little, the first worker has it, who also draws the images.
    ideal = (rows * rank / workers for rank in range(1, workers))
    return [min(rows, math.ceil(cut / multiple) * multiple) for cut in ideal]
