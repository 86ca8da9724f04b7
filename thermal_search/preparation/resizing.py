"""Images resized to a square: torch and Pillow give the same pixels, to one gray level."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from thermal_search.image_files import Pixels
from thermal_search.preparation.settings import ResizeFilter

FILTERS: Mapping[ResizeFilter, Image.Resampling] = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
TORCH_FILTERS: set[ResizeFilter] = {"bicubic", "bilinear"}
"""Torch has these too, and shrinks faster than Pillow."""


def resize_square(image: Pixels, size: int, filter: ResizeFilter) -> Pixels:
    """[height, width, channels] -> [size, size, channels] of the same type, antialiased.

    The aspect ratio is not kept.
    """
    if image.shape[:2] == (size, size):
        return image
    if filter in TORCH_FILTERS and min(image.shape[:2]) >= size:
        # 16-bit counts are resized as floats, which hold them exactly, and rounded.
        exact = image if image.dtype == np.uint8 else image.astype(np.float32)
        planes = torch.from_numpy(exact).permute(2, 0, 1)[None]
        small = F.interpolate(planes, (size, size), mode=filter, antialias=True)
        result = small[0].permute(1, 2, 0).contiguous().numpy()
    elif image.dtype == np.uint8:
        channels = image[..., 0] if image.shape[2] == 1 else image
        resized = Image.fromarray(channels).resize((size, size), FILTERS[filter])
        result = np.asarray(resized).reshape(size, size, -1)
    else:
        counts = Image.fromarray(image[..., 0].astype(np.float32))
        result = np.asarray(counts.resize((size, size), FILTERS[filter]))[..., None]
    if image.dtype == np.uint8:
        return result
    return result.round().clip(0, 65535).astype(np.uint16)
