"""A contact sheet to check an alignment on: RGB, thermal, and their edges before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from thermal_search.atomic_file import replacing
from thermal_search.image_files import Pixels, Unusable, image_size
from thermal_search.preparation.alignment.edge_matching import edge_strength
from thermal_search.preparation.alignment.geometry import Alignment
from thermal_search.preparation.frame_images import open_pair
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.resizing import resize_square

ROWS = 8
TILE = 256
CAPTION = 16
"""Heights in pixels."""

COLUMNS = ("RGB", "thermal", "edges before", "edges after: RGB cyan, thermal red")


def draw_contact_sheet(
    frames: Sequence[SourceFrame], alignments: Mapping[str, Alignment], path: Path
) -> None:
    """Draws one row per frame, spread over the recordings of the pairs."""
    pairs = sorted(
        (frame for frame in frames if frame.kind == "pairs"),
        key=lambda frame: (frame.recording, frame.moment),
    )
    count = min(ROWS, len(pairs))
    chosen = [pairs[(2 * row + 1) * len(pairs) // (2 * count)] for row in range(count)]
    rows = [row for frame in chosen if (row := _row(frame, alignments[frame.recording]))]
    sheet = Image.new("RGB", (len(COLUMNS) * TILE, CAPTION + len(rows) * TILE))
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(COLUMNS):
        draw.text((column * TILE + 4, 2), title, fill="white")
    for number, row in enumerate(rows):
        for column, tile in enumerate(row):
            sheet.paste(Image.fromarray(tile), (column * TILE, CAPTION + number * TILE))
    with replacing(path) as file:
        sheet.save(file, format="PNG")


def _row(frame: SourceFrame, alignment: Alignment) -> list[Pixels] | None:
    try:
        rgb, thermal = open_pair(frame)
        assert frame.rgb
        size = (rgb.shape[1], rgb.shape[0]) if frame.rgb_side else image_size(frame.rgb)
        cut = alignment.cut(rgb, thermal[..., None], size)
    except Unusable:
        return None
    before = [resize_square(image, TILE, "bicubic") for image in (rgb, thermal[..., None])]
    after = [resize_square(np.ascontiguousarray(image), TILE, "bicubic") for image in cut]
    thermal_tile = np.repeat(before[1], 3, axis=2)
    return [before[0], thermal_tile, _overlay(*before), _overlay(*after)]


def _overlay(rgb: Pixels, thermal: Pixels) -> Pixels:
    visible = edge_strength(np.asarray(Image.fromarray(rgb).convert("L")))
    heat = edge_strength(thermal[..., 0])
    tiles = [(edges * 160).clip(0, 255).astype(np.uint8) for edges in (heat, visible, visible)]
    return np.dstack(tiles)
