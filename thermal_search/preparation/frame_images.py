"""The images of one source frame, decoded."""

from pathlib import Path
from typing import Literal

import numpy as np

from thermal_search.image_files import Mode, Pixels, Unusable, read_image, to_gray
from thermal_search.preparation.layouts.contents import SourceFrame


def open_pair(frame: SourceFrame) -> tuple[Pixels, Pixels]:
    """RGB [height, width, 3] and thermal [height, width] as 8-bit pixels. Raises Unusable.

    16-bit counts are stretched to gray levels, from their 1st to their 99th percentile.
    """
    assert frame.rgb
    assert frame.thermal
    rgb = read_half(frame.rgb, "RGB", frame, "rgb")
    try:
        thermal = read_half(frame.thermal, "L", frame, "thermal")
    except Unusable:
        counts = read_image(frame.thermal, "counts").astype(np.float32)
        low, high = np.percentile(counts, (1, 99))
        gray = (counts - low) * (255 / max(high - low, 1))
        thermal = gray.clip(0, 255).astype(np.uint8)
    return rgb, thermal[..., 0]


def read_half(
    path: Path, mode: Mode, frame: SourceFrame, kind: Literal["rgb", "thermal"], min_side: int = 0
) -> Pixels:
    """`read_image`; of a side-by-side image the half that is of this kind. Raises Unusable."""
    if not frame.rgb_side:
        return read_image(path, mode, min_side=min_side)
    image = read_image(path, "RGB" if mode == "L" else mode)
    middle = image.shape[1] // 2
    is_left = (frame.rgb_side == "left") == (kind == "rgb")
    half = np.ascontiguousarray(image[:, :middle] if is_left else image[:, middle : 2 * middle])
    return to_gray(half) if mode == "L" else half
