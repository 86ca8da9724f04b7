"""One image file as pixels, as every viewer shows it, or the reason why it cannot be used.

Every command reads images here: an image is turned by its EXIF orientation, transparent pixels are
black, and a file whose values would change their meaning is refused.
"""

import contextlib
import io
import stat
import warnings
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image

Mode = Literal["RGB", "L", "counts"]
"""RGB, 8-bit gray, or the 16-bit counts of a radiometric camera."""

SUFFIXES = {".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
"""Suffixes of image files, in lower case."""

UNREAD_SUFFIXES = {
    ".arw", ".avi", ".avif", ".cr2", ".dng", ".fff", ".gif", ".heic", ".heif", ".jp2", ".jxl",
    ".mkv", ".mov", ".mp4", ".nef", ".raf", ".raw", ".seq", ".tga",
}  # fmt: skip
"""Suffixes of images and videos that are not read, but must not be ignored in silence."""

COMPANIONS = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin"}
"""Names, in lower case, of what operating systems keep beside images."""

MAX_FILE_BYTES = 512 * 2**20
"""A larger file is no camera's image, and would not fit in memory with the others."""

MAX_PIXELS = 50_000_000
"""More would take 1 GB to decode. JPEGs take less: of them Pillow's limit holds, 89 million."""

MAX_SPREAD = 32
"""Gray levels between the channels of a pixel above which it has a color: JPEG's noise is less."""

MAX_COLORED = 0.1
"""Fraction of colored pixels above which an image is not gray: a drawn box or a logo is less."""

MAX_PAGES = 32
"""Pages of a TIFF that are counted: a small file may claim millions, a pyramid has about ten."""

ORIENTATION, PHOTOMETRIC, BITS, SUBFILE_TYPE = 274, 262, 258, 254
"""Numbers of TIFF's tags."""

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a TIFF begins."""

Pixels = np.ndarray[Any, np.dtype[Any]]


class Unusable(Exception):
    """A file holds no image that we can use; the message is the reason."""


class Colored(Unusable):
    """An image that must be gray is in color."""


def read_image(path: Path, mode: Mode, *, min_side: int = 0, max_bits: int = 16) -> Pixels:
    """The image as [height, width, channels], uint8, or uint16 for counts.

    RGB of 16 bits is reduced to 8, as viewers do, unless `max_bits` refuses it.

    With `min_side`, a JPEG may be decoded at half, a quarter or an eighth of its size, as long as
    both sides keep at least that many pixels: libjpeg then skips detail that a resize would drop.
    Raises Unusable.
    """
    return decode(read_content(path), mode, min_side=min_side, max_bits=max_bits)


def read_content(path: Path) -> bytes:
    """The bytes of an image's file. Raises Unusable."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unusable("not a file")
        if status.st_size > MAX_FILE_BYTES:
            raise Unusable(f"a file of {status.st_size / 2**20:.0f} MiB; up to 512 are read")
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"unreadable ({error.strerror or error})") from None


def rgb_of(image: Image.Image) -> Pixels:
    """[height, width, 3] of an image that Pillow has opened, as `read_image` reads it. Raises
    Unusable."""
    if image.mode == "F":
        raise Unusable("floating-point pixels; integers of up to 16 bits are read")
    # Loaded before it is turned: Pillow itself turns a TIFF.
    pixels = _opaque(image)
    return _with_mode(_upright(pixels, _orientation(image)), "RGB")


def find_images(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The images in a folder, sorted, and what else in it looks like images, with the reason why it
    is not read."""
    images: list[Path] = []
    ignored: list[tuple[Path, str]] = []
    for path in sorted(folder.iterdir()):
        if is_companion(path.name):
            continue
        if path.is_dir():
            if count := sum(is_image_name(file.name) for file in path.rglob("*")):
                ignored.append((path, f"{count} images in a subfolder, which is not read"))
        elif path.suffix.lower() in SUFFIXES:
            images.append(path)
        elif path.suffix.lower() in UNREAD_SUFFIXES:
            ignored.append((path, f"{path.suffix} files are not read; convert them to PNG"))
    return images, ignored


def is_companion(name: str) -> bool:
    """Whether a file's name says that a tool keeps it beside images: `._a.jpg`, `Thumbs.db`."""
    return name.startswith(".") or name.lower() in COMPANIONS


def is_image_name(name: str) -> bool:
    """Whether a file looks like an image, readable or not."""
    suffix = Path(name).suffix.lower()
    return not is_companion(name) and (suffix in SUFFIXES or suffix in UNREAD_SUFFIXES)


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels as shown, from the file's header. Raises Unusable."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            width, height = image.size
            # Pillow itself turns a TIFF.
            is_turned = image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)
            return (height, width) if is_turned else (width, height)
    except Exception as error:  # any, from a decoder
        raise Unusable(f"corrupt ({_one_line(error)})") from None


def decode(content: bytes, mode: Mode, *, min_side: int = 0, max_bits: int = 16) -> Pixels:
    """Like `read_image`, from a file's bytes."""
    if not content:
        raise Unusable("corrupt (the file is empty)")
    try:
        with warnings.catch_warnings(action="ignore"):
            # Broken metadata is only a warning, as in a viewer: the pixels are whole. An image of
            # absurd size is one too, but would fill the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                return _decoded(image, content, mode, min_side, max_bits)
    except Unusable:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Unusable(f"too large to be an image ({_one_line(error)})") from None
    except Image.UnidentifiedImageError:
        if content.startswith(TIFF_MAGIC):
            raise Unusable(
                "corrupt, or a kind of TIFF that is not read; integers of up to 16 bits are"
            ) from None
        raise Unusable("corrupt (not an image)") from None
    except Exception as error:  # any: decoders raise many kinds for damaged files
        raise Unusable(f"corrupt ({_one_line(error)})") from None


def to_gray(rgb: Pixels) -> Pixels:
    """[height, width, 3] -> [height, width, 1]. Raises Colored if the image is not gray."""
    if is_colored(rgb):
        raise Colored("in color; a thermal image must be gray, white-hot and without a palette")
    return np.array(Image.fromarray(rgb).convert("L"))[..., None]


def is_colored(rgb: Pixels) -> bool:
    """Whether [height, width, 3] has colors, apart from noise and small drawings."""
    step = max(min(rgb.shape[:2]) // 64, 1)
    sample = np.ascontiguousarray(rgb[::step, ::step])
    spread = sample.max(2) - sample.min(2)
    return float((spread > MAX_SPREAD).mean()) > MAX_COLORED


def _decoded(
    image: Image.Image, content: bytes, mode: Mode, min_side: int, max_bits: int
) -> Pixels:
    if image.format == "TIFF" and (pages := _pages(image)) > 1:
        count = f"{pages} or more" if pages == MAX_PAGES else pages
        raise Unusable(f"a TIFF of {count} pages; files of one image are read")
    bits = _bits(image, content)
    is_jpeg = image.format == "JPEG" and image.mode in ("RGB", "L")
    if image.width * image.height > MAX_PIXELS and not is_jpeg:
        size = f"{image.width} x {image.height} pixels"
        raise Unusable(f"too large to be an image ({size}; up to {MAX_PIXELS:,} are read)")
    if mode == "counts":
        return _counts(image, content, bits)
    if image.mode == "F" or bits > 16:
        raise Unusable(f"{image.mode} pixels of {bits} bits; integers of up to 16 bits are read")
    if bits > max_bits:
        raise Unusable(f"{bits} bits per pixel; {max_bits}-bit images are read")
    if mode == "L" and bits > 8:
        raise Unusable("16 bits per pixel; 8-bit images are read, unless --thermal 16bit is passed")
    if is_jpeg:
        # Pillow's own decoder takes twice as long for the same pixels.
        pixels = _decode_jpeg(content, image, min_side)
        if pixels is not None:
            return _with_mode(_upright(pixels, _orientation(image)), mode)
    pixels = _opaque(image)
    # After loading: Pillow has then turned a TIFF, and forgotten its orientation.
    return _with_mode(_upright(pixels, _orientation(image)), mode)


def _pages(image: Image.Image) -> int:
    """The number of images in a TIFF, up to MAX_PAGES, reduced copies of the first not counted."""
    pages = 0
    with contextlib.suppress(EOFError):  # there are no more
        for number in range(MAX_PAGES):
            image.seek(number)
            pages += not (number and image.tag_v2.get(SUBFILE_TYPE, 0) & 1)  # pyright: ignore[reportAttributeAccessIssue] - of TIFFs
    image.seek(0)
    return pages


def _bits(image: Image.Image, content: bytes) -> int:
    """Bits of one channel of one pixel in the file; Pillow may give fewer."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS, (1,)))  # pyright: ignore[reportAttributeAccessIssue] - of TIFFs
    if image.format == "PNG":
        return content[24]
    return 16 if image.mode.startswith("I") else 32 if image.mode == "F" else 8


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 (upright) to 8; 1 if the EXIF data are broken."""
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # any, from broken metadata
        return 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turned and mirrored so that the top is up."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


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


def _opaque(image: Image.Image) -> Pixels:
    """8-bit pixels of one or three channels, as they look on black."""
    image.load()
    if image.mode == "LAB":
        raise Unusable("Lab pixels; RGB, CMYK and gray are read")
    if image.mode.startswith("I"):
        return (_integers(image) >> 8).astype(np.uint8)[..., None]
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
    is_gray = image.mode in ("1", "L")
    pixels = np.array(image.convert("L" if is_gray else "RGB"))
    return pixels[..., None] if is_gray else pixels


def _with_mode(pixels: Pixels, mode: Mode) -> Pixels:
    if pixels.shape[2] == 3 and mode == "L":
        return to_gray(pixels)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 and mode == "RGB" else pixels


def _counts(image: Image.Image, content: bytes, bits: int) -> Pixels:
    if image.mode.startswith("I"):
        counts = _integers(image)
        return _upright(counts[..., None], _orientation(image))
    if image.mode == "F":
        raise Unusable(
            "floating-point pixels; --thermal 16bit reads 16-bit counts: save degrees as counts, "
            "and pass their scale"
        )
    if bits != 16:
        raise Unusable(f"{image.mode} pixels; --thermal 16bit reads 16-bit images of one channel")
    # Pillow drops the low byte of several channels.
    orientation = _orientation(image)
    counts = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if counts is None or counts.dtype != np.uint16 or counts.ndim != 3:
        raise Unusable("corrupt (16-bit channels cannot be decoded)")
    if counts.shape[2] == 4 and counts[..., 3].min() < 65535:
        raise Unusable("transparent pixels; --thermal 16bit reads 16-bit images of one channel")
    if (counts[..., :3] != counts[..., :1]).any():
        raise Unusable("different channels; --thermal 16bit reads 16-bit images of one channel")
    return _upright(counts[..., :1], orientation)


def _integers(image: Image.Image) -> Pixels:
    """[height, width], uint16: the pixels of one channel, 0 the darkest."""
    values = np.array(image)
    if values.min() < 0 or values.max() > 65535:
        raise Unusable(f"values from {values.min()} to {values.max()}; 16-bit images are read")
    return (65535 - values if _is_inverted(image) else values).astype(np.uint16)


def _is_inverted(image: Image.Image) -> bool:
    """Whether 0 is white, which Pillow ignores in 16-bit TIFFs."""
    return image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0  # pyright: ignore[reportAttributeAccessIssue] - of TIFFs


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
