"""DATASET/preview.png: a few pairs of a finished dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from thermal_search.atomic_file import replacing
from thermal_search.data.manifest import Manifest
from thermal_search.image_files import Pixels
from thermal_search.images import to_pixels
from thermal_search.storage import Location

PAIRS = 6


def draw_preview(manifest: Manifest, path: Path) -> None:
    """Draws pairs side by side, RGB above thermal, spread over the training (or val) split."""
    size = manifest.size
    split = "train" if manifest.count("pairs", "train") else "val"
    shards = manifest.shard_paths("pairs", split)
    total = manifest.count("pairs", split)
    count = min(PAIRS, total)
    canvas = Image.new("RGB", (count * size, 2 * size))
    for column in range(count):
        row = _read_row(shards, column * total // count)
        planes = np.frombuffer(row["rgb"], np.uint8).reshape(3, size, size)
        rgb = Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
        thermal = Image.fromarray(_grey(row["thermal"], manifest))
        canvas.paste(rgb, (column * size, 0))
        canvas.paste(thermal, (column * size, size))
    with replacing(path) as file:
        canvas.save(file, format="PNG")


def _grey(thermal: bytes, manifest: Manifest) -> Pixels:
    shape = (manifest.size, manifest.size)
    if not manifest.temperatures:
        return np.frombuffer(thermal, np.uint8).reshape(shape)
    counts = torch.from_numpy(np.frombuffer(thermal, "<u2").reshape(shape).astype(np.uint16))
    return to_pixels(manifest.temperatures.images(counts)).numpy()


def _read_row(shards: Sequence[Location], number: int) -> dict[str, Any]:
    for path in shards:
        rows = pq.read_metadata(path).num_rows
        if number < rows:
            return pq.read_table(path).slice(number, 1).to_pylist()[0]
        number -= rows
    raise AssertionError("the shards have fewer rows than the manifest says")
