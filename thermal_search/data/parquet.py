"""Parquet shards as frames in memory, without Ray."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from thermal_search.data.frames import Frames
from thermal_search.data.manifest import FrameKind, Manifest, Split
from thermal_search.images import Temperatures

Column = Literal["rgb", "thermal"]


def read_pairs(manifest: Manifest, split: Split) -> tuple[Frames, Frames]:
    """RGB and thermal frames of a split's pairs, in the order of the shards."""
    tables = _tables(manifest, "pairs", split, ["rgb", "thermal"])
    return (
        frames_of(tables, "rgb", manifest.size),
        frames_of(tables, "thermal", manifest.size, manifest.temperatures),
    )


def read_thermal(manifest: Manifest, split: Split) -> Frames:
    """All thermal frames of a split: those of the pairs, then those without a partner."""
    tables = [
        table
        for kind in ("pairs", "thermal")
        for table in _tables(manifest, kind, split, ["thermal"])
    ]
    return frames_of(tables, "thermal", manifest.size, manifest.temperatures)


def frames_of(
    tables: list[pa.Table], column: Column, size: int, temperatures: Temperatures | None = None
) -> Frames:
    """A column of raw pixels, or of counts with the meaning `temperatures`, not copied."""
    if column == "rgb":
        temperatures = None
    channels = 3 if column == "rgb" else 1
    shape = (channels, size, size)
    dtype = np.dtype(np.uint8 if temperatures is None else "<u2")
    views = [
        _pixels(chunk, shape, dtype) for table in tables for chunk in table.column(column).chunks
    ]
    return Frames(views, size=size, channels=channels, temperatures=temperatures)


def _tables(
    manifest: Manifest, kind: FrameKind, split: Split, columns: list[Column]
) -> list[pa.Table]:
    return [
        parquet.read_table(
            shard.path,
            columns=columns,
            filesystem=shard.filesystem,
            memory_map=True,  # used only for files on a disk
        )
        for shard in manifest.shard_paths(kind, split)
    ]


def _pixels(
    chunk: pa.FixedSizeBinaryArray, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    row = int(np.prod(shape))
    data = chunk.buffers()[1]
    assert data is not None
    start = chunk.offset * row * dtype.itemsize
    return np.frombuffer(data, dtype, len(chunk) * row, start).reshape(len(chunk), *shape)
