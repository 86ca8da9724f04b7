"""Generated images as gray levels, temperatures or colors, and as PNG."""

import struct
import zlib
from collections.abc import Mapping
from functools import cache

import cv2
import numpy as np
from matplotlib import colormaps
from PIL import Image

from thermal_search.errors import SettingsError, nearest
from thermal_search.image_files import Pixels
from thermal_search.images import Temperatures
from thermal_search.translation.settings import TranslationSettings

KELVIN_PER_COUNT, CELSIUS_AT_ZERO = 0.01, -273.15
"""The scale of --celsius, as FLIR's cameras have it in high gain: count 0 is absolute zero."""

COMPRESSION = 3
"""zlib's level: higher ones take several times as long for a few percent."""

HEADER_BYTES = 8 + 25
"""PNG's signature and its first chunk, IHDR."""


def render(
    thermal: Pixels,
    rgb: Pixels | None,
    settings: TranslationSettings,
    temperatures: Temperatures | None,
) -> Pixels:
    """A thermal image [height, width] in -1 .. 1 as the pixels of a file: [height, width] of uint8
    or uint16, or [height, width, 3] of uint8.

    `rgb`: the image to show beside it with --side-by-side; `temperatures`: for --celsius.
    """
    if settings.celsius:
        assert temperatures
        low, high = temperatures.low, temperatures.high
        celsius = (thermal.astype(np.float64) + 1) * ((high - low) / 2) + low
        return _to_integers((celsius - CELSIUS_AT_ZERO) / KELVIN_PER_COUNT, np.uint16)
    if settings.depth == 16:
        return _to_integers((thermal.astype(np.float64) + 1) * 32767.5, np.uint16)
    pixels = _to_integers((thermal + 1) * 127.5, np.uint8)
    if settings.colormap is not None:
        pixels = colors(settings.colormap)[pixels]
    if settings.side_by_side:
        assert rgb is not None
        shape = thermal.shape
        if rgb.shape[:2] != shape:
            resized = Image.fromarray(rgb).resize(shape[::-1], Image.Resampling.BICUBIC)
            rgb = np.asarray(resized)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        pixels = np.concatenate([rgb, pixels], axis=1)
    return pixels


def texts(settings: TranslationSettings) -> dict[str, str]:
    """What a PNG must say about its values."""
    if not settings.celsius:
        return {}
    return {"kelvin_per_count": str(KELVIN_PER_COUNT), "celsius_at_zero": str(CELSIUS_AT_ZERO)}


@cache
def colors(colormap: str) -> Pixels:
    """The RGB colors of the gray levels, [256, 3], by a colormap of matplotlib.

    Raises SettingsError if there is none of that name.
    """
    if colormap not in colormaps:
        names = nearest(colormap, list(colormaps), otherwise="gray, inferno, magma, turbo and more")
        raise SettingsError(f"--colormap {colormap}: matplotlib has no such colormap: {names}")
    return (colormaps[colormap](np.arange(256) / 255)[:, :3] * 255).round().astype(np.uint8)


def encode_png(pixels: Pixels, texts: Mapping[str, str]) -> bytes:
    """A PNG file with these texts, which must be ASCII.

    OpenCV encodes without Python's lock, so that threads encode while others work.
    """
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    encoded, content = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, COMPRESSION])
    assert encoded
    png = content.tobytes()
    chunks = b"".join(
        _chunk(b"tEXt", key.encode("ascii") + b"\0" + text.encode("ascii"))
        for key, text in texts.items()
    )
    return png[:HEADER_BYTES] + chunks + png[HEADER_BYTES:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def _to_integers(values: Pixels, kind: type[np.uint8] | type[np.uint16]) -> Pixels:
    return values.round().clip(0, np.iinfo(kind).max).astype(kind)
