"""Prepared shards as frames in memory, without Ray."""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from thermal_search.dataset.frames import Frames
from thermal_search.dataset.manifest import Manifest, Split

Column = Literal["rgb", "thermal"]


def read_pairs(manifest: Manifest, split: Split) -> tuple[Frames, Frames]:
    """RGB and thermal frames of a split's pairs, in their stored order."""
    tables = [
        parquet.read_table(str(path), columns=["rgb", "thermal"], memory_map=True)
        for path in manifest.shard_paths("pairs", split)
    ]
    return (
        frames_of(tables, "rgb", manifest.size),
        frames_of(tables, "thermal", manifest.size),
    )


def frames_of(tables: list[pa.Table], column: Column, size: int) -> Frames:
    """A column of raw pixels, uncopied."""
    channels = 3 if column == "rgb" else 1
    shape = (size, size, channels)
    views = [_pixels(chunk, shape) for table in tables for chunk in table.column(column).chunks]
    return Frames(views, size=size, channels=channels)


def _pixels(chunk: pa.FixedSizeBinaryArray, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    row = int(np.prod(shape))
    data = chunk.buffers()[1]
    assert data is not None
    view = np.frombuffer(data, np.uint8, count=len(chunk) * row, offset=chunk.offset * row)
    return view.reshape(len(chunk), *shape)
