"""An image as patches of the sizes that a generator takes, and generated patches as an image."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thermal_search.image_files import Pixels
from thermal_search.preparation.resizing import resize_square
from thermal_search.translation.settings import TranslationSettings

MIN_NATIVE_SIDE = 32
"""A smaller image is padded to this: reflection padding needs features of several pixels."""


@dataclass(frozen=True)
class Patches:
    """The parts of an image that go through the generator."""

    rgb: Sequence[Tensor]
    """Each [3, height, width], uint8, all of one size."""

    join: Callable[[Sequence[Pixels]], Pixels]
    """From the generated patches, each [height, width], to the thermal image; float32, -1 .. 1."""


@dataclass(frozen=True)
class Tile:
    """One tile of an image, and its weights in the blend."""

    top: int
    left: int
    rows: Pixels
    """The weight of each row, from 0 to 1; with `columns` that of each pixel."""

    columns: Pixels


def cut(
    rgb: Pixels, size: int, settings: TranslationSettings, size_multiple: int | None
) -> Patches:
    """The patches of an image [height, width, 3] for a generator of size x size pixels.

    `size_multiple`: for --size native, what both sides of its images must be a multiple of.
    """
    if settings.tiles:
        overlap = size // 4 if settings.overlap is None else settings.overlap
        return _cut_tiles(rgb, size, overlap)
    if settings.size == "native":
        assert size_multiple
        return _pad_natively(rgb, size_multiple)
    shown = (rgb.shape[0], rgb.shape[1]) if settings.size == "image" else None
    if settings.fit == "pad":
        return _pad_to_square(rgb, size, shown)
    patch = resize_square(rgb, size, "bicubic")  # process.py's default
    return Patches([_planes(patch)], lambda generated: _resize(generated[0], shown))


def _planes(pixels: Pixels) -> Tensor:
    """[height, width, 3] -> [3, height, width]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def _resize(image: Pixels, shape: tuple[int, int] | None) -> Pixels:
    """A float image as height x width; unchanged if that is None."""
    if shape is None or image.shape == shape:
        return image
    height, width = shape
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def _margins(length: int, target: int) -> tuple[int, int]:
    """What is added before and after."""
    before = (target - length) // 2
    return before, target - length - before


def _pad(rgb: Pixels, height: int, width: int) -> tuple[Pixels, tuple[slice, slice]]:
    """An image with mirrored borders, and where it is in the larger one."""
    rows, columns = _margins(rgb.shape[0], height), _margins(rgb.shape[1], width)
    inside = (
        slice(rows[0], rows[0] + rgb.shape[0]),
        slice(columns[0], columns[0] + rgb.shape[1]),
    )
    return np.pad(rgb, (rows, columns, (0, 0)), mode="reflect"), inside


def _pad_to_square(rgb: Pixels, size: int, shown: tuple[int, int] | None) -> Patches:
    height, width = rgb.shape[:2]
    scale = size / max(height, width)
    small = Image.fromarray(rgb).resize(
        (max(round(width * scale), 1), max(round(height * scale), 1)), Image.Resampling.BICUBIC
    )
    padded, inside = _pad(np.asarray(small), size, size)
    return Patches([_planes(padded)], lambda generated: _resize(generated[0][inside], shown))


def _pad_natively(rgb: Pixels, multiple: int) -> Patches:
    height, width = (
        max(math.ceil(length / multiple) * multiple, MIN_NATIVE_SIDE) for length in rgb.shape[:2]
    )
    padded, inside = _pad(rgb, height, width)
    return Patches([_planes(padded)], lambda generated: generated[0][inside])


def _cut_tiles(rgb: Pixels, size: int, overlap: int) -> Patches:
    padded, inside = _pad(rgb, max(rgb.shape[0], size), max(rgb.shape[1], size))
    height, width = padded.shape[:2]
    tiles = plan_tiles(height, width, size, overlap)
    patches = [_planes(padded[t.top : t.top + size, t.left : t.left + size]) for t in tiles]
    return Patches(patches, lambda generated: blend(tiles, generated, height, width)[inside])


def plan_tiles(height: int, width: int, size: int, overlap: int) -> list[Tile]:
    """Tiles of size x size pixels that cover an image evenly; neighbors share at least `overlap`
    pixels. Both sides of the image have at least `size` pixels."""
    rows, columns = _spans(height, size, overlap), _spans(width, size, overlap)
    return [
        Tile(top, left, row_weights, column_weights)
        for (top, row_weights), (left, column_weights) in itertools.product(rows, columns)
    ]


def _spans(length: int, size: int, overlap: int) -> list[tuple[int, Pixels]]:
    """The starts of the tiles along one axis, each with its weights.

    Where two tiles overlap, the weight passes from one to the other like sin^2 and cos^2, without
    a bend; a tile's outermost pixels, which know least of their surroundings, weigh least.
    """
    count = math.ceil((length - overlap) / (size - overlap)) if length > size else 1
    starts = [round(i * (length - size) / max(count - 1, 1)) for i in range(count)]
    weights = [np.ones(size, np.float32) for _ in starts]
    for (first, second), (before, after) in zip(
        itertools.pairwise(starts), itertools.pairwise(weights), strict=True
    ):
        shared = first + size - second
        rising = np.sin(np.pi / 2 * (np.arange(shared) + 0.5) / max(shared, 1)) ** 2
        after[:shared] *= rising
        before[size - shared :] *= rising[::-1]
    return list(zip(starts, weights, strict=True))


def blend(tiles: Sequence[Tile], generated: Sequence[Pixels], height: int, width: int) -> Pixels:
    """The weighted mean of overlapping tiles, [height, width]."""
    total = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    for tile, image in zip(tiles, generated, strict=True):
        weight = np.outer(tile.rows, tile.columns)
        place = (
            slice(tile.top, tile.top + len(tile.rows)),
            slice(tile.left, tile.left + len(tile.columns)),
        )
        total[place] += weight * image
        weights[place] += weight
    return total / weights
