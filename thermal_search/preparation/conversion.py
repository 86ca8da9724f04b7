"""One source frame from its files to raw pixels of the dataset's size. Runs in many processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2

from thermal_search.image_files import Colored, Mode, Pixels, Unusable, image_size, is_colored
from thermal_search.preparation.alignment.geometry import Alignment, Size
from thermal_search.preparation.frame_images import read_half
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.resizing import resize_square
from thermal_search.preparation.settings import PreparationSettings

FAST_MARGIN = 2
"""A fast decode keeps at least so many times the pixels of the result along each side."""

ImageKind = Literal["rgb", "thermal"]


@dataclass(frozen=True)
class ConvertedFrame:
    """Raw pixels of a frame, channels first; or the reason why there are none."""

    frame: SourceFrame
    rgb: bytes | None = None
    thermal: bytes | None = None
    """One byte per pixel, or two (little-endian) of a 16-bit image."""

    fault: str = ""
    faulty_file: Path | None = None


def convert_frame(
    frame: SourceFrame, settings: PreparationSettings, alignment: Alignment | None = None
) -> ConvertedFrame:
    """The frame's images as squares: RGB of 3 bytes per pixel, thermal of 1 or 2.

    With an alignment, a pair is first cut to the scene that both images show.
    """
    sizes: list[Size] = []
    images: dict[ImageKind, Pixels] = {}
    for kind, path, mode in _files(frame, settings):
        if path is None:
            reason = "no 16-bit thermal image beside it"
            return ConvertedFrame(frame, fault=reason, faulty_file=frame.thermal)
        try:
            # Images that must agree in size, and halves of one image, are read at full size.
            may_shrink = settings.fast and not frame.same_size and not frame.rgb_side
            min_side = FAST_MARGIN * settings.size if may_shrink else 0
            images[kind] = image = read_half(path, mode, frame, kind, min_side)
        except Colored as error:
            is_swapped = "rgb" in images and not is_colored(images["rgb"])
            fault = "in color, beside a gray RGB image; are the sides swapped?"
            return ConvertedFrame(
                frame, fault=fault if is_swapped else str(error), faulty_file=path
            )
        except Unusable as error:
            return ConvertedFrame(frame, fault=str(error), faulty_file=path)
        sizes.append((image.shape[1], image.shape[0]))
    if alignment and frame.rgb and frame.thermal:
        try:
            size = sizes[0] if frame.rgb_side else image_size(frame.rgb)
            images["rgb"], images["thermal"] = alignment.cut(images["rgb"], images["thermal"], size)
        except Unusable as error:
            return ConvertedFrame(frame, fault=str(error), faulty_file=frame.rgb)
        except (ArithmeticError, ValueError, cv2.error) as error:
            fault = f"its alignment cannot be applied ({type(error).__name__})"
            return ConvertedFrame(frame, fault=fault, faulty_file=frame.rgb)
    elif frame.same_size and len(set(sizes)) > 1:
        (w, h), (w2, h2) = sizes
        fault = f"mismatched: RGB is {w} x {h} pixels, thermal {w2} x {h2}"
        return ConvertedFrame(frame, fault=fault, faulty_file=frame.rgb)
    pixels = {
        kind: resize_square(image, settings.size, settings.filter).transpose(2, 0, 1).tobytes()
        for kind, image in images.items()
    }
    return ConvertedFrame(frame, rgb=pixels.get("rgb"), thermal=pixels.get("thermal"))


def _files(
    frame: SourceFrame, settings: PreparationSettings
) -> Sequence[tuple[ImageKind, Path | None, Mode]]:
    """The file of each image, and how to decode it; None for a 16-bit image that is missing."""
    files: list[tuple[ImageKind, Path | None, Mode]] = []
    if frame.rgb:
        files.append(("rgb", frame.rgb, "RGB"))
    if frame.thermal and settings.thermal == "8bit":
        files.append(("thermal", frame.thermal, "L"))
    elif frame.thermal:
        is_own = not frame.radiometric and frame.thermal.suffix.lower() in (".tif", ".tiff", ".png")
        files.append(("thermal", frame.thermal if is_own else frame.radiometric, "counts"))
    return files
