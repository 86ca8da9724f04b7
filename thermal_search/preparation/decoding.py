"""One image file as pixels, or the reason why it cannot be used."""

import io
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image

Mode = Literal["RGB", "L", "counts"]
"""RGB, 8-bit gray, or the 16-bit counts of a radiometric camera."""

MAX_FILE_BYTES = 512 * 2**20
"""A larger file is no camera's image, and would not fit in memory with the others."""

Pixels = np.ndarray[Any, np.dtype[Any]]


class Unusable(Exception):
    """A file holds no image that we can use; the message is the reason."""


def read_image(path: Path, mode: Mode, *, min_side: int = 0) -> Pixels:
    """The image as [height, width, channels], uint8, or uint16 for counts.

    With `min_side`, a JPEG may be decoded at half, a quarter or an eighth of its size, as long as
    both sides keep at least that many pixels: libjpeg then skips detail that a resize would drop.
    Raises Unusable.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise Unusable(f"a file of {size / 2**20:.0f} MiB; up to 512 are read")
        return decode(path.read_bytes(), mode, min_side=min_side)
    except OSError as error:
        raise Unusable(f"unreadable ({error.strerror or error})") from None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's header. Raises Unusable."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable(f"corrupt ({error})") from None


def decode(content: bytes, mode: Mode, *, min_side: int = 0) -> Pixels:
    """Like `read_image`, from a file's bytes."""
    if not content:
        raise Unusable("corrupt (the file is empty)")
    try:
        with warnings.catch_warnings():
            # Pillow only warns about an image of absurd size or broken metadata; we refuse it.
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(content)) as image:
                return _decoded(image, content, mode, min_side)
    except (
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise Unusable(f"too large to be an image ({error})") from None
    except Image.UnidentifiedImageError:
        raise Unusable("corrupt (not an image)") from None
    except (OSError, ValueError, SyntaxError, Warning, EOFError) as error:
        raise Unusable(f"corrupt ({error})") from None


def _decoded(image: Image.Image, content: bytes, mode: Mode, min_side: int) -> Pixels:
    if mode == "counts":
        return _counts(image)
    if image.mode.startswith(("I", "F")):
        raise Unusable("16 bits per pixel; 8-bit images are read, unless --thermal 16bit is passed")
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        # Pillow's own decoder takes twice as long for the same pixels.
        pixels = _decode_jpeg(content, image, min_side)
        if pixels is not None:
            return _with_mode(pixels, mode)
    pixels = np.array(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_jpeg(content: bytes, image: Image.Image, min_side: int) -> Pixels | None:
    width, height = image.size
    factor = 1
    while min_side and factor < 8 and min(width, height) // (2 * factor) >= min_side:
        factor *= 2
    try:
        return simplejpeg.decode_jpeg(
            content,
            colorspace="RGB" if image.mode == "RGB" else "GRAY",
            min_width=-(-width // factor),
            min_height=-(-height // factor),
            min_factor=1,
        )
    except ValueError:
        # Pillow decides: it reads files that are merely unusual, and names the fault of the others.
        return None


def _with_mode(pixels: Pixels, mode: Mode) -> Pixels:
    if pixels.shape[2] == 3 and mode == "L":
        return np.array(Image.fromarray(pixels).convert("L"))[..., None]
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 and mode == "RGB" else pixels


def _counts(image: Image.Image) -> Pixels:
    if not image.mode.startswith("I"):
        raise Unusable(f"{image.mode} pixels; --thermal 16bit reads 16-bit images of one channel")
    counts = np.array(image)
    if counts.min() < 0 or counts.max() > 65535:
        raise Unusable(f"values from {counts.min()} to {counts.max()}; 16-bit counts are read")
    return counts.astype(np.uint16)[..., None]
