"""Parquet shards as frames in memory, without Ray."""

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from thermal_search.data.frames import Frames
from thermal_search.data.manifest import FrameKind, Manifest, Shard, Split
from thermal_search.errors import DatasetError
from thermal_search.images import Temperatures

Column = Literal["rgb", "thermal"]

READERS = 4
"""Shards that are checked at once."""


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


def check_shards(manifest: Manifest, wanted: Iterable[tuple[FrameKind, Split]]) -> None:
    """Reads these shards and compares them with the manifest; DatasetError at a difference."""
    chosen = [shard for shard in manifest.shards if (shard.kind, shard.split) in set(wanted)]
    with ThreadPoolExecutor(READERS) as readers:
        for _ in readers.map(lambda shard: _read(manifest, shard, []), chosen):
            pass


def _tables(
    manifest: Manifest, kind: FrameKind, split: Split, columns: list[Column]
) -> list[pa.Table]:
    return [
        _read(manifest, shard, columns)
        for shard in manifest.shards
        if (shard.kind, shard.split) == (kind, split)
    ]


def _read(manifest: Manifest, shard: Shard, columns: Sequence[Column]) -> pa.Table:
    """A shard whose bytes have the manifest's checksum, and whose rows are as it says."""
    path = manifest.folder / shard.path
    try:
        if filesystem := path.filesystem:
            with filesystem.open_input_file(path.path) as file:
                content = file.read_buffer()
        else:
            with pa.memory_map(path.path) as file:
                content = file.read_buffer()
        if hashlib.sha256(content).hexdigest() != shard.sha256:
            raise ValueError("its checksum is not the manifest's")
        metadata = parquet.read_metadata(pa.BufferReader(content))
        if metadata.num_rows != shard.rows:
            raise ValueError(f"it has {metadata.num_rows} rows, the manifest says {shard.rows}")
        schema = metadata.schema.to_arrow_schema()
        row_bytes = 0
        for column in ("rgb", "thermal") if shard.kind == "pairs" else (shard.kind,):
            width = pixel_bytes(column, manifest.size, is_deep=manifest.temperatures is not None)
            if schema.field(column).type != pa.binary(width):
                raise ValueError(f"{column} is {schema.field(column).type}, not {width} bytes")
            row_bytes += width
        # Pixels are stored as they are: other files can claim any number of them.
        if row_bytes * shard.rows > len(content):
            raise ValueError(f"its {len(content)} bytes cannot hold {shard.rows} rows")
        table = parquet.read_table(pa.BufferReader(content), columns=list(columns))
        if len(table) != shard.rows:
            raise ValueError(f"it has {len(table)} rows, the manifest says {shard.rows}")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:200]
        raise DatasetError(f"{path} is damaged ({reason}): prepare the dataset again.") from None
    return table


def pixel_bytes(column: Column, size: int, *, is_deep: bool) -> int:
    """Bytes of one frame's pixels; `is_deep` if thermal pixels are 16-bit counts."""
    return size * size * (3 if column == "rgb" else 2 if is_deep else 1)


def _pixels(
    chunk: pa.FixedSizeBinaryArray, shape: tuple[int, int, int], dtype: np.dtype[Any]
) -> np.ndarray[Any, Any]:
    row = int(np.prod(shape))
    data = chunk.buffers()[1]
    assert data is not None
    start = chunk.offset * row * dtype.itemsize
    return np.frombuffer(data, dtype, len(chunk) * row, start).reshape(len(chunk), *shape)
