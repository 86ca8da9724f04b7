"""The images of one source frame, decoded."""

from typing import Literal

import numpy as np

from thermal_search.preparation.decoding import Pixels, Unusable, read_image
from thermal_search.preparation.layouts.contents import SourceFrame


def open_pair(frame: SourceFrame) -> tuple[Pixels, Pixels]:
    """RGB [height, width, 3] and thermal [height, width] as 8-bit pixels. Raises Unusable.

    16-bit counts are stretched to gray levels, from their 1st to their 99th percentile.
    """
    assert frame.rgb
    assert frame.thermal
    rgb = own_half(read_image(frame.rgb, "RGB"), frame, "rgb")
    try:
        thermal = own_half(read_image(frame.thermal, "L"), frame, "thermal")
    except Unusable:
        counts = read_image(frame.thermal, "counts").astype(np.float32)
        low, high = np.percentile(counts, (1, 99))
        gray = (counts - low) * (255 / max(high - low, 1))
        thermal = gray.clip(0, 255).astype(np.uint8)
    return rgb, thermal[..., 0]


def own_half(image: Pixels, frame: SourceFrame, kind: Literal["rgb", "thermal"]) -> Pixels:
    """The half of a side-by-side image that is of this kind; any other image unchanged."""
    if not frame.rgb_side:
        return image
    middle = image.shape[1] // 2
    is_left = (frame.rgb_side == "left") == (kind == "rgb")
    return image[:, :middle] if is_left else image[:, middle : 2 * middle]
