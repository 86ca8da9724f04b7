"""Alignments: the position of a thermal image in its RGB image, and how both are cut to it."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import cv2
import numpy as np

from thermal_search.errors import DatasetError
from thermal_search.image_files import Pixels, Unusable
from thermal_search.preparation.settings import FLIR_V2_DEGREES
from thermal_search.storage import Location

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as fractions of an image's width and height."""

Size = tuple[int, int]
"""Width and height in pixels."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

MAX_BYTES = 2**24
"""Of a file of homographies: more would be no file of matrices."""

MAX_OVERSAMPLING = 4
MIN_OVERLAP = 0.3
"""Least fraction of the thermal image's sides that the RGB image must show too."""


@final
@dataclass(frozen=True)
class Boxes:
    """The same fractions of every image."""

    rgb: Box = WHOLE
    thermal: Box = WHOLE

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        return crop(rgb, self.rgb), crop(thermal, self.thermal)


@final
@dataclass(frozen=True)
class Center:
    """The cameras share an optical axis: the wider view is cropped to the other's field of view."""

    thermal_degrees: float = FLIR_V2_DEGREES[0]
    rgb_degrees: float = FLIR_V2_DEGREES[1]

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        # Pinhole cameras with square pixels: half of the image's width is tan(half the angle).
        across = _half_width(self.thermal_degrees) / _half_width(self.rgb_degrees)
        height, width = thermal.shape[:2]
        down = across * (height / width) / (rgb_size[1] / rgb_size[0])
        inside = central(min(across, 1), min(down, 1))
        return crop(rgb, inside), crop(thermal, central(min(1 / across, 1), min(1 / down, 1)))


@final
@dataclass(frozen=True)
class Table:
    """FLIR v1's crops by the size of the RGB image, as measured for PID (fangyuanmao/PID)."""

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        if rgb_size not in CROPS:
            sizes = ", ".join(f"{width} x {height}" for width, height in CROPS)
            raise Unusable(
                f"no known crop for RGB of {rgb_size[0]} x {rgb_size[1]} pixels (known: {sizes})"
            )
        rgb_box, thermal_box = CROPS[rgb_size]
        return crop(rgb, rgb_box), crop(thermal, thermal_box)


@final
@dataclass(frozen=True)
class Homography:
    """`matrix` maps a thermal pixel (x, y, 1) to its RGB pixel; pixel centers are whole numbers."""

    matrix: tuple[float, ...]
    """Nine numbers, row by row."""

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        height, width = thermal.shape[:2]
        # A fast decode may have shrunk the RGB image; the matrix is of its original size.
        shrunk = rgb.shape[1] / rgb_size[0]
        matrix = _scaling(shrunk) @ np.array(self.matrix).reshape(3, 3)
        box = self._common_box(matrix, (width, height), (rgb.shape[1], rgb.shape[0]))
        # Warped at about the RGB image's own scale: the antialiased resize comes later.
        corners = _apply(matrix, _corners((width, height), WHOLE))
        scale = np.ptp(corners[:, 0]) / width
        oversampling = int(np.clip(round(scale), 1, MAX_OVERSAMPLING))
        warped = cv2.warpPerspective(
            rgb,
            matrix @ np.linalg.inv(_scaling(oversampling)),
            (width * oversampling, height * oversampling),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return crop(warped, box), crop(thermal, box)

    def _common_box(self, matrix: Pixels, thermal: Size, rgb: Size) -> Box:
        """The largest central box of the thermal image that the RGB image shows too."""
        for fraction in np.arange(1, MIN_OVERLAP, -0.01):
            box = central(fraction, fraction)
            points = _apply(matrix, _corners(thermal, box))
            # One pixel outside is allowed: it repeats the border.
            if (points >= -1.5).all() and (points <= np.array(rgb) + 0.5).all():
                return box
        raise Unusable("its homography leads out of the RGB image")


Alignment = Boxes | Center | Table | Homography


def parameters_of(alignment: Alignment) -> dict[str, float | list[float]]:
    """The fields of an alignment, as JSON values."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(alignment).items()
    }


CROPS: Mapping[Size, tuple[Box, Box]] = {
    (1800, 1600): ((150 / 1800, 140 / 1600, 1750 / 1800, 1420 / 1600), WHOLE),
    (720, 480): ((138 / 720, 45 / 480, 618 / 720, 429 / 480), WHOLE),
    (1280, 1024): (WHOLE, (70 / 640, 32 / 512, 590 / 640, 448 / 512)),
    (2048, 1536): (WHOLE, (65 / 640, 35 / 512, 545 / 640, 419 / 512)),
}
"""RGB and thermal box by the RGB image's size; thermal is 640 x 512."""


def central(across: float, down: float) -> Box:
    """The central box of these fractions."""
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def crop(image: Pixels, box: Box) -> Pixels:
    """The box of an image, rounded to whole pixels, at least one."""
    height, width = image.shape[:2]
    left, right = round(box[0] * width), round(box[2] * width)
    top, bottom = round(box[1] * height), round(box[3] * height)
    return image[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)]


def overlap(box: Box) -> Boxes:
    """The region that both images show, of a thermal image at `box` in the RGB image."""
    left, top, right, bottom = box
    common = (max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0))
    width, height = right - left, bottom - top
    thermal = (
        (common[0] - left) / width,
        (common[1] - top) / height,
        (common[2] - left) / width,
        (common[3] - top) / height,
    )
    return Boxes(rgb=common, thermal=thermal)


def read_homographies(path: Path) -> Mapping[str, Homography]:
    """{recording: 3 x 3 matrix} from a JSON file; `*` stands for every other recording."""
    try:
        content: Any = json.loads(Location.of(path).read_bytes(MAX_BYTES))
    except OSError as error:
        reason = error.strerror or error
        raise DatasetError(f"{path} cannot be read ({reason}): name a JSON file.") from None
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{path} must be JSON, but is not ({error}).") from None
    if not isinstance(content, dict) or not content:
        raise DatasetError(
            f"{path} must map recordings (or *) to 3 x 3 matrices from thermal to RGB pixels, but "
            "does not."
        )
    return {str(name): _homography(path, str(name), rows) for name, rows in content.items()}  # pyright: ignore[reportUnknownVariableType] - of JSON


def _homography(path: Path, name: str, rows: Any) -> Homography:
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or _is_singular(matrix):
        raise DatasetError(
            f"{path}: the matrix of {name!r} must be 3 x 3 finite numbers that can be inverted, "
            f"but is {json.dumps(rows)[:80]}."
        )
    return Homography(tuple(matrix.flatten().tolist()))


def _is_singular(matrix: Pixels) -> bool:
    with np.errstate(all="ignore"):
        determinant = abs(float(np.linalg.det(matrix)))
    return not 1e-9 <= determinant < math.inf


def _half_width(degrees: float) -> float:
    return math.tan(math.radians(degrees / 2))


def _scaling(scale: float) -> Pixels:
    """Maps pixel centers of an image to those of the same image `scale` times as large."""
    offset = (scale - 1) / 2
    return np.array([[scale, 0, offset], [0, scale, offset], [0, 0, 1]])


def _corners(size: Size, box: Box) -> Pixels:
    (width, height), (left, top, right, bottom) = size, box
    x0, x1 = left * width - 0.5, right * width - 0.5
    y0, y1 = top * height - 0.5, bottom * height - 0.5
    return np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]])


def _apply(matrix: Pixels, points: Pixels) -> Pixels:
    mapped = np.hstack([points, np.ones((len(points), 1))]) @ matrix.T
    return mapped[:, :2] / mapped[:, 2:]
