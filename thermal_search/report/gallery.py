"""The images of a search side by side: RGB, real, the best of each architecture, inverted grey.

They are cut from the image grids that evaluations write: rows of RGB | real | generated.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from thermal_search.errors import StorageError
from thermal_search.evaluation.baselines import invert_grey
from thermal_search.storage import Location

PADDING = 2
"""Pixels around each image of a grid."""

COLUMNS = 3
MAX_SIDE = 256
"""Larger images are reduced: a page has up to a hundred."""

LOSSLESS_SIDE = 96
"""Up to this many pixels, what WebP loses would be seen, and saves little."""

QUALITY = 92

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""[height, width, 3]."""


@dataclass(frozen=True)
class Grid:
    """One evaluation's images."""

    rgb: Sequence[Pixels]
    real: Sequence[Pixels]
    generated: Sequence[Pixels]

    def shows_same_scenes(self, other: "Grid") -> bool:
        """Whether the real images of both are the same."""
        return len(self.rgb) == len(other.rgb) and all(
            np.array_equal(mine, its)
            for mine, its in zip((*self.rgb, *self.real), (*other.rgb, *other.real), strict=True)
        )


@dataclass(frozen=True)
class Source:
    """A generator in the gallery, and the grid of its last evaluation."""

    title: str
    detail: str
    grid: Location


@dataclass(frozen=True)
class Picture:
    uri: str
    alt: str


@dataclass(frozen=True)
class Column:
    title: str
    detail: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Gallery:
    """Columns of images of the same scenes."""

    columns: Sequence[Column]
    side: int
    """Pixels of an image."""

    @property
    def rows(self) -> int:
        return len(self.columns[0].pictures)


def galleries(sources: Sequence[Source]) -> tuple[list[Gallery], list[str]]:
    """One gallery for generators that were evaluated on the same images, as they are in a search
    unless its number of workers changed; and a sentence for each grid that is not there."""
    groups: list[list[tuple[Source, Grid]]] = []
    missing: list[str] = []
    for source in sources:
        try:
            grid = read_grid(source.grid)
        except FileNotFoundError:
            missing.append(f"{source.title}: there is no file {source.grid.name}.")
            continue
        except (OSError, StorageError, ValueError, Image.DecompressionBombError) as error:
            missing.append(f"{source.title}: {source.grid.name} cannot be read ({error}).")
            continue
        same = (group for group in groups if group[0][1].shows_same_scenes(grid))
        group = next(same, None)
        if group is None:
            groups.append([(source, grid)])
        else:
            group.append((source, grid))
    return [_gallery(group) for group in groups], missing


def read_grid(path: Location) -> Grid:
    """The images of a grid. Raises OSError or StorageError if it cannot be read, ValueError if it
    is no grid."""
    with path.open_input() as file, Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    side, left = divmod(width - PADDING, COLUMNS)
    rows, below = divmod(height - PADDING, max(side, 1))
    if left or below or side <= PADDING or not rows:
        raise ValueError(f"{width} x {height} pixels are no grid of square images")

    def column(number: int) -> list[Pixels]:
        x = PADDING + number * side
        tops = (PADDING + row * side for row in range(rows))
        return [pixels[y : y + side - PADDING, x : x + side - PADDING] for y in tops]

    return Grid(column(0), column(1), column(2))


def _gallery(group: Sequence[tuple[Source, Grid]]) -> Gallery:
    first = group[0][1]
    columns = [
        _column("RGB", "input", first.rgb),
        _column("real", "thermal camera", first.real),
        *(_column(source.title, source.detail, grid.generated) for source, grid in group),
        _column("inverted grey", "baseline", [_inverted_grey(rgb) for rgb in first.rgb]),
    ]
    return Gallery(columns, side=min(len(first.rgb[0]), MAX_SIDE))


def _column(title: str, detail: str, images: Sequence[Pixels]) -> Column:
    return Column(
        title,
        detail,
        [
            Picture(_data_uri(pixels), f"{title}, scene {number}")
            for number, pixels in enumerate(images, start=1)
        ],
    )


def _inverted_grey(rgb: Pixels) -> Pixels:
    inverted = invert_grey(torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None])
    return inverted[0].expand(3, -1, -1).permute(1, 2, 0).numpy()


def _data_uri(pixels: Pixels) -> str:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if np.array_equal(pixels[..., 0], pixels[..., 1]) and np.array_equal(
        pixels[..., 0], pixels[..., 2]
    ):
        image = image.convert("L")
    if image.width > MAX_SIDE:
        image = image.resize((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, lossless=image.width <= LOSSLESS_SIDE, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
