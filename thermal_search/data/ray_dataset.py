"""A dataset in Ray Data: read once, kept in the object store, and split among the workers.

Rows are raw pixels, which a worker reads directly from shared memory, in any order and without a
copy. An epoch starts without delay, and its order is a pure function of the trial's seed.
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
from thermal_search.data.manifest import FrameKind, Manifest, Split
from thermal_search.data.parquet import Column, check_shards, frames_of
from thermal_search.images import Temperatures
from thermal_search.pair_alignment import PairAlignment

Subset = Literal["pairs", "rgb", "thermal", "validation", "test"]
"""Training pairs, training frames without a partner of either kind, and evaluation pairs."""

EVALUATED: set[Subset] = {"validation", "test"}


@dataclass(frozen=True)
class WorkerShard:
    """One worker's shard of a dataset, cheap to send: it holds references, not pixels."""

    size: int
    temperatures: Temperatures | None
    alignment: PairAlignment
    blocks: Mapping[Subset, Sequence[Any]]
    """References to Arrow tables in the object store."""

    starts: Mapping[Subset, int]
    """Index of the shard's first pair among the pairs of all workers, of the evaluation subsets."""


@dataclass(frozen=True)
class LoadedDataset:
    """A dataset in the object store. The process that loaded it must outlive its readers."""

    size: int
    temperatures: Temperatures | None
    alignment: PairAlignment
    subsets: Mapping[Subset, MaterializedDataset[Any]]
    copies: list[pa.Table] = field(default_factory=list[pa.Table])
    """Every block of a worker's shard, mapped into this process."""

    def split_among(self, workers: int) -> list[WorkerShard]:
        """Every row in exactly one of `workers` shards, in contiguous runs."""
        blocks: list[dict[Subset, Sequence[Any]]] = [{} for _ in range(workers)]
        starts: list[dict[Subset, int]] = [{} for _ in range(workers)]
        for subset, dataset in self.subsets.items():
            multiple = EVALUATION_BATCH if subset in EVALUATED else 1
            cuts = _cuts(dataset.count(), workers, multiple)
            pieces = dataset.split_at_indices(cuts) if cuts else [dataset]
            for own_blocks, piece in zip(blocks, pieces, strict=True):
                own_blocks[subset] = list(piece.to_arrow_refs())
                # While it is mapped here, a copy stays on this machine, so that the loss of another
                # machine loses no block. Otherwise Ray would compute lost blocks again, and wait
                # forever for CPUs that the slots hold.
                self.copies.extend(ray.get(own_blocks[subset]))
            for own_starts, start in zip(starts, [0, *cuts], strict=True):
                own_starts[subset] = start
        return [
            WorkerShard(
                self.size,
                self.temperatures,
                self.alignment,
                blocks=own_blocks,
                starts=own_starts,
            )
            for own_blocks, own_starts in zip(blocks, starts, strict=True)
        ]


def load(manifest: Manifest, *, with_test: bool = False) -> LoadedDataset:
    """Reads the training split, the validation pairs and, with `with_test`, the test pairs.

    DatasetError if a shard is not as the manifest says.
    """
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    # The second reader starts 32 processes for every read, however small.
    context.use_datasource_v2 = False
    wanted: list[tuple[Subset, FrameKind, Split]] = [
        ("pairs", "pairs", "train"),
        ("rgb", "rgb", "train"),
        ("thermal", "thermal", "train"),
        ("validation", "pairs", "val"),
        *([("test", "pairs", "test")] if with_test else []),
    ]
    check_shards(manifest, [(kind, split) for _, kind, split in wanted])
    subsets: dict[Subset, MaterializedDataset[Any]] = {}
    for subset, kind, split in wanted:
        if shards := manifest.shard_paths(kind, split):
            columns = ["rgb", "thermal"] if kind == "pairs" else [kind]
            dataset = ray.data.read_parquet(
                [shard.path for shard in shards],
                columns=columns,
                filesystem=manifest.folder.filesystem,
            )
            subsets[subset] = dataset.materialize()
    return LoadedDataset(manifest.size, manifest.temperatures, manifest.pair_alignment, subsets)


def open_worker_shard(shard: WorkerShard) -> WorkerFrames:
    """A worker's frames, in shared memory; blocks of other nodes are fetched once."""
    pairs = _frames(shard, "pairs", "rgb"), _frames(shard, "pairs", "thermal")
    return WorkerFrames(
        size=shard.size,
        paired=pairs,
        unpaired=(
            pairs[0] + _frames(shard, "rgb", "rgb"),
            pairs[1] + _frames(shard, "thermal", "thermal"),
        ),
        validation=_evaluation_pairs(shard, "validation"),
        test=_evaluation_pairs(shard, "test"),
        alignment=shard.alignment,
    )


def _evaluation_pairs(shard: WorkerShard, subset: Subset) -> EvaluationPairs:
    rgb, thermal = _frames(shard, subset, "rgb"), _frames(shard, subset, "thermal")
    return EvaluationPairs(rgb, thermal, shard.starts.get(subset, 0))


def _frames(shard: WorkerShard, subset: Subset, column: Column) -> Frames:
    tables: list[pa.Table] = ray.get(list(shard.blocks.get(subset, [])))
    return frames_of(tables, column, shard.size, shard.temperatures)


def _cuts(rows: int, workers: int, multiple: int) -> list[int]:
    # Rounded up: few rows all go to the first worker, which also draws the image grids.
    ideal = (rows * rank / workers for rank in range(1, workers))
    return [min(rows, math.ceil(cut / multiple) * multiple) for cut in ideal]
