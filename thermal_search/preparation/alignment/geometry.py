"""The ways to say where a thermal image lies in its RGB image, and how to cut both to it."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import cv2
import numpy as np

from thermal_search.errors import DatasetError
from thermal_search.preparation.decoding import Pixels, Unusable

Box = tuple[float, float, float, float]
"""Left, top, right and bottom as shares of an image's width and height."""

Size = tuple[int, int]
"""Width and height in pixels."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
FLIR_V2_DEGREES = (45.0, 52.8)
"""Horizontal fields of view of FLIR ADAS v2's cameras, thermal and RGB (its README)."""

LARGEST_OVERSAMPLING = 4
SMALLEST_SHARE = 0.3
"""Of the thermal image's sides that must be seen by the RGB camera too."""


@final
@dataclass(frozen=True)
class Boxes:
    """The same shares of every image."""

    rgb: Box = WHOLE
    thermal: Box = WHOLE

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        return crop(rgb, self.rgb), crop(thermal, self.thermal)


@final
@dataclass(frozen=True)
class Center:
    """Both cameras look along one axis: the wider one is cropped to the other's field of view."""

    thermal_degrees: float = FLIR_V2_DEGREES[0]
    rgb_degrees: float = FLIR_V2_DEGREES[1]

    def __post_init__(self) -> None:
        if not (0 < self.thermal_degrees < 180 and 0 < self.rgb_degrees < 180):
            raise DatasetError(
                "--fields-of-view must be two angles between 0 and 180 degrees, thermal and RGB, "
                f"but are {self.thermal_degrees:g},{self.rgb_degrees:g}."
            )

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        # Pinhole cameras with square pixels: the image's half width is tan(half the angle).
        across = _half(self.thermal_degrees) / _half(self.rgb_degrees)
        height, width = thermal.shape[:2]
        down = across * (height / width) / (rgb_size[1] / rgb_size[0])
        inside = central(min(across, 1), min(down, 1))
        return crop(rgb, inside), crop(thermal, central(min(1 / across, 1), min(1 / down, 1)))


@final
@dataclass(frozen=True)
class Table:
    """FLIR v1's crops by the size of the RGB image, as PID measured them (fangyuanmao/PID)."""

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        if rgb_size not in CROPS:
            known = ", ".join(f"{width} x {height}" for width, height in CROPS)
            raise Unusable(
                f"no known crop for RGB of {rgb_size[0]} x {rgb_size[1]} pixels (known: {known})"
            )
        rgb_box, thermal_box = CROPS[rgb_size]
        return crop(rgb, rgb_box), crop(thermal, thermal_box)


@final
@dataclass(frozen=True)
class Homography:
    """A thermal pixel (x, y, 1) lies at the RGB pixel `matrix` takes it to; centers are whole."""

    matrix: tuple[float, ...]
    """Nine numbers, row by row."""

    def cut(self, rgb: Pixels, thermal: Pixels, rgb_size: Size) -> tuple[Pixels, Pixels]:
        height, width = thermal.shape[:2]
        # A fast decode may have shrunk the RGB image; the matrix speaks of the whole one.
        shrunk = rgb.shape[1] / rgb_size[0]
        matrix = _about_centers(shrunk) @ np.array(self.matrix).reshape(3, 3)
        box = self._seen(matrix, (width, height), (rgb.shape[1], rgb.shape[0]))
        # Warped at about the RGB image's own scale: the antialiased resize comes afterwards.
        corners = _through(matrix, _corners((width, height), WHOLE))
        scale = np.ptp(corners[:, 0]) / width
        finer = int(np.clip(round(scale), 1, LARGEST_OVERSAMPLING))
        warped = cv2.warpPerspective(
            rgb,
            matrix @ np.linalg.inv(_about_centers(finer)),
            (width * finer, height * finer),
            flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return crop(warped, box), crop(thermal, box)

    def _seen(self, matrix: Pixels, thermal: Size, rgb: Size) -> Box:
        """The largest central part of the thermal image that the RGB image shows too."""
        for share in np.arange(1, SMALLEST_SHARE, -0.01):
            box = central(share, share)
            points = _through(matrix, _corners(thermal, box))
            # A pixel beyond the rim is repeated, not invented.
            if (points >= -1.5).all() and (points <= np.array(rgb) + 0.5).all():
                return box
        raise Unusable("its homography leads out of the RGB image")


Alignment = Boxes | Center | Table | Homography

CROPS: Mapping[Size, tuple[Box, Box]] = {
    (1800, 1600): ((150 / 1800, 140 / 1600, 1750 / 1800, 1420 / 1600), WHOLE),
    (720, 480): ((138 / 720, 45 / 480, 618 / 720, 429 / 480), WHOLE),
    (1280, 1024): (WHOLE, (70 / 640, 32 / 512, 590 / 640, 448 / 512)),
    (2048, 1536): (WHOLE, (65 / 640, 35 / 512, 545 / 640, 419 / 512)),
}
"""RGB and thermal box by the RGB image's size; thermal is 640 x 512."""


def central(across: float, down: float) -> Box:
    """The box of these shares in the middle."""
    return (1 - across) / 2, (1 - down) / 2, (1 + across) / 2, (1 + down) / 2


def crop(image: Pixels, box: Box) -> Pixels:
    """The part of an image, to whole pixels."""
    height, width = image.shape[:2]
    left, right = round(box[0] * width), round(box[2] * width)
    top, bottom = round(box[1] * height), round(box[3] * height)
    return image[max(top, 0) : max(bottom, top + 1), max(left, 0) : max(right, left + 1)]


def overlap(box: Box) -> Boxes:
    """Of a thermal image that lies at `box` in the RGB one, what both show."""
    left, top, right, bottom = box
    seen = (max(left, 0.0), max(top, 0.0), min(right, 1.0), min(bottom, 1.0))
    width, height = right - left, bottom - top
    thermal = (
        (seen[0] - left) / width,
        (seen[1] - top) / height,
        (seen[2] - left) / width,
        (seen[3] - top) / height,
    )
    return Boxes(rgb=seen, thermal=thermal)


def read_homographies(path: Path) -> Mapping[str, Homography]:
    """{recording: 3 x 3 matrix} from JSON, `*` standing for every other recording."""
    try:
        content: Any = json.loads(path.read_text())
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}): name a JSON file.") from None
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON ({error}).") from None
    if not isinstance(content, dict) or not content:
        raise DatasetError(
            f"{path} must map recordings (or *) to 3 x 3 matrices from thermal to RGB pixels, but "
            "is no such object."
        )
    return {str(name): _homography(path, str(name), rows) for name, rows in content.items()}  # pyright: ignore[reportUnknownVariableType] - of JSON


def _homography(path: Path, name: str, rows: Any) -> Homography:
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (ValueError, TypeError):
        matrix = np.zeros(0)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all() or _is_flat(matrix):
        raise DatasetError(
            f"{path}: the matrix of {name!r} must be 3 x 3 finite numbers that can be inverted, "
            f"but is {json.dumps(rows)[:80]}."
        )
    return Homography(tuple(matrix.flatten().tolist()))


def _is_flat(matrix: Pixels) -> bool:
    return abs(float(np.linalg.det(matrix))) < 1e-9


def _half(degrees: float) -> float:
    return math.tan(math.radians(degrees / 2))


def _about_centers(scale: float) -> Pixels:
    """Pixel coordinates of an image -> those of the same image `scale` times as large."""
    rest = (scale - 1) / 2
    return np.array([[scale, 0, rest], [0, scale, rest], [0, 0, 1]])


def _corners(size: Size, box: Box) -> Pixels:
    (width, height), (left, top, right, bottom) = size, box
    x0, x1 = left * width - 0.5, right * width - 0.5
    y0, y1 = top * height - 0.5, bottom * height - 0.5
    return np.array([[x0, y0], [x1, y0], [x0, y1], [x1, y1]])


def _through(matrix: Pixels, points: Pixels) -> Pixels:
    taken = np.hstack([points, np.ones((len(points), 1))]) @ matrix.T
    return taken[:, :2] / taken[:, 2:]
