"""One frame from disk to raw pixels. Runs in many processes: imports little."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from thermal_search.dataset.layouts import Frame

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


@dataclass(frozen=True)
class Resized:
    """Raw pixels of a frame, channels last; or why there are none."""

    frame: Frame
    rgb: bytes | None = None
    thermal: bytes | None = None
    fault: str = ""
    faulty: Path | None = None


def resize(frame: Frame, size: int, filter: str) -> Resized:
    """The frame squashed to size x size pixels: RGB to 3 bytes a pixel, thermal to 1."""
    sizes: list[tuple[int, int]] = []
    pixels: dict[str, bytes] = {}
    for kind, path in (("rgb", frame.rgb), ("thermal", frame.thermal)):
        if path is None:
            continue
        try:
            picture = _read(path, "RGB" if kind == "rgb" else "L")
        except _Unusable as error:
            return Resized(frame, fault=str(error), faulty=path)
        except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
            return Resized(frame, fault=f"corrupt ({error})", faulty=path)
        sizes.append(picture.size)
        small = picture.resize((size, size), FILTERS[filter])
        pixels[kind] = np.asarray(small).tobytes()
    if frame.same_size and len(set(sizes)) > 1:
        (w, h), (w2, h2) = sizes
        fault = f"mismatched: RGB is {w} x {h} pixels, thermal {w2} x {h2}"
        return Resized(frame, fault=fault, faulty=frame.rgb)
    return Resized(frame, rgb=pixels.get("rgb"), thermal=pixels.get("thermal"))


class _Unusable(Exception):
    """A picture that opens, but is not what we work with."""


def _read(path: Path, mode: str) -> Image.Image:
    with warnings.catch_warnings():
        # A picture too large to be one, or with broken metadata, is a bad file, not a remark.
        warnings.simplefilter("error")
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise _Unusable("16 bits a pixel; 8-bit pictures are read")
            return picture.convert(mode)
