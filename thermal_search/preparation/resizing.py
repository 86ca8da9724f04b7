"""One frame from disk to raw pixels of the size asked for. Runs in many processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from thermal_search.preparation.alignment.geometry import Alignment, Size
from thermal_search.preparation.decoding import Mode, Pixels, Unusable, image_size, read_image
from thermal_search.preparation.layouts.frame import Frame

Depth = Literal["8bit", "16bit"]

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
QUICK = {"bicubic", "bilinear"}
"""The filters torch has too: for shrinking the same as Pillow's, to one grey level, and faster."""

FAST_MARGIN = 2
"""A fast decode keeps at least so many times the pixels of the result along each side."""


@dataclass(frozen=True)
class ResizeConfig:
    """How a frame becomes raw pixels."""

    size: int
    """Height and width of the result in pixels."""

    filter: str = "bicubic"
    thermal: Depth = "8bit"
    fast: bool = False
    """Let libjpeg scale large JPEGs while it decodes them: not the same pixels, but near."""


@dataclass(frozen=True)
class Resized:
    """Raw pixels of a frame, channels first; or why there are none."""

    frame: Frame
    rgb: bytes | None = None
    thermal: bytes | None = None
    """One byte a pixel, or two, the low one first, of a radiometric image."""

    fault: str = ""
    faulty: Path | None = None


def resize(frame: Frame, recipe: ResizeConfig, alignment: Alignment | None = None) -> Resized:
    """The frame squashed to a square: RGB of 3 bytes a pixel, thermal of 1 or 2.

    With an alignment, a pair is cut to what both images show before.
    """
    sizes: list[Size] = []
    images: dict[str, Pixels] = {}
    for kind, path, mode in _images(frame, recipe):
        if path is None:
            reason = "no 16-bit thermal image beside it"
            return Resized(frame, fault=reason, faulty=frame.thermal)
        try:
            # A pair that must agree in size, or is halves of one image, is read as it is.
            may_scale = recipe.fast and not frame.same_size and not frame.rgb_side
            smallest = FAST_MARGIN * recipe.size if may_scale else 0
            image = read_image(path, mode, smallest=smallest)
        except Unusable as error:
            return Resized(frame, fault=str(error), faulty=path)
        images[kind] = image = _half(image, frame, kind)
        sizes.append((image.shape[1], image.shape[0]))
    if alignment and frame.rgb and frame.thermal:
        try:
            size = sizes[0] if frame.rgb_side else image_size(frame.rgb)
            cut = alignment.cut(images["rgb"], images["thermal"], size)
        except Unusable as error:
            return Resized(frame, fault=str(error), faulty=frame.rgb)
        images = dict(zip(("rgb", "thermal"), cut, strict=True))
    elif frame.same_size and len(set(sizes)) > 1:
        (w, h), (w2, h2) = sizes
        fault = f"mismatched: RGB is {w} x {h} pixels, thermal {w2} x {h2}"
        return Resized(frame, fault=fault, faulty=frame.rgb)
    pixels = {
        kind: resize_square(image, recipe.size, recipe.filter).transpose(2, 0, 1).tobytes()
        for kind, image in images.items()
    }
    return Resized(frame, rgb=pixels.get("rgb"), thermal=pixels.get("thermal"))


def open_pair(frame: Frame) -> tuple[Pixels, Pixels]:
    """RGB [height, width, 3] and thermal [height, width] as 8-bit pixels; Unusable otherwise.

    Counts of a radiometric image are stretched over the grey levels.
    """
    assert frame.rgb
    assert frame.thermal
    rgb = _half(read_image(frame.rgb, "RGB"), frame, "rgb")
    try:
        thermal = _half(read_image(frame.thermal, "L"), frame, "thermal")
    except Unusable:
        counts = read_image(frame.thermal, "counts").astype(np.float32)
        low, high = np.percentile(counts, (1, 99))
        grey = (counts - low) * (255 / max(high - low, 1))
        thermal = grey.clip(0, 255).astype(np.uint8)
    return rgb, thermal[..., 0]


def resize_square(image: Pixels, size: int, filter: str) -> Pixels:
    """[height, width, channels] -> [size, size, channels] of the same type, antialiased."""
    if image.shape[:2] == (size, size):
        return image
    if filter in QUICK and min(image.shape[:2]) >= size:
        # 16-bit counts are resized as floats, which hold them exactly, and rounded.
        wide = image if image.dtype == np.uint8 else image.astype(np.float32)
        planes = torch.from_numpy(wide).permute(2, 0, 1)[None]
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


def _images(frame: Frame, recipe: ResizeConfig) -> Sequence[tuple[str, Path | None, Mode]]:
    images: list[tuple[str, Path | None, Mode]] = []
    if frame.rgb:
        images.append(("rgb", frame.rgb, "RGB"))
    if frame.thermal and recipe.thermal == "8bit":
        images.append(("thermal", frame.thermal, "L"))
    elif frame.thermal:
        is_own = not frame.radiometric and frame.thermal.suffix.lower() in (".tif", ".tiff", ".png")
        images.append(("thermal", frame.thermal if is_own else frame.radiometric, "counts"))
    return images


def _half(image: Pixels, frame: Frame, kind: str) -> Pixels:
    if not frame.rgb_side:
        return image
    middle = image.shape[1] // 2
    is_left = (frame.rgb_side == "left") == (kind == "rgb")
    return image[:, :middle] if is_left else image[:, middle : 2 * middle]
