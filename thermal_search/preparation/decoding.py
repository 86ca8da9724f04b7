"""One image file to pixels, or the reason why it cannot be used."""

import io
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg
from PIL import Image

Mode = Literal["RGB", "L", "counts"]
"""RGB, 8-bit grey, or the 16-bit counts of a radiometric camera."""

LARGEST_FILE = 512 * 2**20
"""Bytes. A larger file is no image of a camera, and would not fit beside the others."""

Pixels = np.ndarray[Any, np.dtype[Any]]


class Unusable(Exception):
    """A file that holds no image we can use; the message is the reason."""


def read_image(path: Path, mode: Mode, *, smallest: int = 0) -> Pixels:
    """The image as [height, width, channels], uint8, or uint16 for counts; Unusable otherwise.

    With `smallest`, a JPEG may be decoded at half, a quarter or an eighth of its size, as long as
    both sides keep so many pixels: libjpeg then skips the work for detail that a resize would drop.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise Unusable(f"a file of {size / 2**20:.0f} MiB; up to 512 are read")
        return decode(path.read_bytes(), mode, smallest=smallest)
    except OSError as error:
        raise Unusable(f"unreadable ({error.strerror or error})") from None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's head; Unusable where it has none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Unusable(f"corrupt ({error})") from None


def decode(content: bytes, mode: Mode, *, smallest: int = 0) -> Pixels:
    """As `read_image`, of a file's bytes."""
    if not content:
        raise Unusable("corrupt (the file is empty)")
    try:
        with warnings.catch_warnings():
            # An image too large to be one, or with broken metadata, is a bad file, not a remark.
            warnings.simplefilter("error")
            with Image.open(io.BytesIO(content)) as image:
                return _pixels(image, content, mode, smallest)
    except (
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise Unusable(f"too large to be an image ({error})") from None
    except Image.UnidentifiedImageError:
        raise Unusable("corrupt (not an image)") from None
    except (OSError, ValueError, SyntaxError, Warning, EOFError) as error:
        raise Unusable(f"corrupt ({error})") from None


def _pixels(image: Image.Image, content: bytes, mode: Mode, smallest: int) -> Pixels:
    if mode == "counts":
        return _counts(image)
    if image.mode.startswith(("I", "F")):
        raise Unusable("16 bits a pixel; 8-bit images are read, unless --thermal 16bit is passed")
    if image.format == "JPEG" and image.mode in ("RGB", "L"):
        # Pillow's own decoder takes twice as long for the same pixels.
        pixels = _decode_jpeg(content, image, smallest)
        if pixels is not None:
            return _converted(pixels, mode)
    pixels = np.array(image.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


def _decode_jpeg(content: bytes, image: Image.Image, smallest: int) -> Pixels | None:
    width, height = image.size
    factor = 1
    while smallest and factor < 8 and min(width, height) // (2 * factor) >= smallest:
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
        # Pillow has the last word: it reads a file that is only odd, and says what else is wrong.
        return None


def _converted(pixels: Pixels, mode: Mode) -> Pixels:
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
