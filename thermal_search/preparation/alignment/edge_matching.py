"""Finds the position of a thermal image in its RGB image, by their edges.

The brightness of the two is unrelated, but both have edges at the outlines of objects. Fields of
edge directions are compared (orientation correlation, Fitch et al., BMVC 2002). Angles are doubled,
so that an edge of inverted contrast is the same edge; each edge is normalized by its surroundings.
The search is coarse at first, over all scales and shifts; then fine, near the position that a
recording's frames agree on; at last by ECC (Evangelidis & Psarakis, PAMI 2008) on edge strength.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from thermal_search.image_files import Pixels
from thermal_search.preparation.alignment.geometry import WHOLE, Box

COARSE, FINE = 128, 256
"""Height and width at which images are compared, in pixels."""

SCALES = np.exp(np.linspace(np.log(0.62), np.log(1.34), 27))
"""Fractions of the RGB image's sides that thermal may show."""

TEMPLATE = 0.6
"""Central fraction of the thermal image that the coarse search matches; its rim may lie outside of
the RGB image."""

FINE_SCALES = np.linspace(0.94, 1.06, 9)
MAX_FINE_SHIFT = 14
"""Pixels, of FINE, by which the fine search shifts at most."""

FINE_TEMPLATE = 0.8


@dataclass(frozen=True)
class Match:
    """The position of the thermal image in the RGB image; it may extend beyond the RGB image."""

    box: Box
    score: float
    """Normalized correlation of the edges: near 0 for unrelated ones, 1 for equal ones."""


def search(rgb: Pixels, thermal: Pixels) -> Match:
    """The best match over all scales and shifts, of gray uint8 [height, width] of any sizes."""
    rim = round(COARSE * (1 - TEMPLATE) / 2)
    template = _edges(_view(thermal, WHOLE, COARSE), 12)[rim:-rim, rim:-rim]
    best = Match(WHOLE, -1.0)
    for scale in SCALES:
        size = round(COARSE / scale)
        field = _edges(_view(rgb, WHOLE, size), 12)
        if size < len(template):
            continue
        correlation = _correlate(field, template)
        _, score, _, (x, y) = cv2.minMaxLoc(correlation)
        if score > best.score:
            left, top = (x - rim) / size, (y - rim) / size
            box = (left, top, left + COARSE / size, top + COARSE / size)
            best = Match(box, float(score))
    return best


def search_near(rgb: Pixels, thermal: Pixels, near: Box) -> Match:
    """The best match within 6 % of scale and 14 pixels of 256 of a box."""
    rim = round(FINE * (1 - FINE_TEMPLATE) / 2)
    template = _edges(_view(thermal, WHOLE, FINE), 24)[rim:-rim, rim:-rim]
    best = Match(near, -1.0)
    for scale in FINE_SCALES:
        box = _scaled(near, scale)
        field = _edges(_view(rgb, box, FINE), 24)
        field = field[
            rim - MAX_FINE_SHIFT : FINE - rim + MAX_FINE_SHIFT,
            rim - MAX_FINE_SHIFT : FINE - rim + MAX_FINE_SHIFT,
        ]
        correlation = _correlate(field, template)
        _, score, _, (x, y) = cv2.minMaxLoc(correlation)
        if score > best.score:
            dx = x - MAX_FINE_SHIFT + _subpixel_peak(correlation[y, :], x)
            dy = y - MAX_FINE_SHIFT + _subpixel_peak(correlation[:, x], y)
            best = Match(_moved(box, dx / FINE, dy / FINE), float(score))
    return best


def refine(rgb: Pixels, thermal: Pixels, near: Box) -> Match | None:
    """A match to fractions of a pixel, from a nearly right box; None if ECC does not converge."""
    template = _smooth_strength(_view(thermal, WHOLE, FINE))
    image = _smooth_strength(_view(rgb, near, FINE))
    mask = np.full(template.shape, 255, np.uint8)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    try:
        score, warp = cv2.findTransformECC(
            template,
            image,
            np.array([[1, 0, 0], [0, 1, 0]], np.float32),
            cv2.MOTION_AFFINE,
            criteria,
            mask,
            1,
        )
    except cv2.error:
        return None
    # Only scale and shift about the center are kept of the affine transform.
    center = (FINE - 1) / 2
    middle = warp[:, :2] @ [center, center] + warp[:, 2] + 0.5
    across, down = float(warp[0, 0]), float(warp[1, 1])
    left, top = middle[0] / FINE - across / 2, middle[1] / FINE - down / 2
    return Match(_within(near, (left, top, left + across, top + down)), float(score))


def distance(box: Box, other: Box, size: int) -> float:
    """The largest distance of two boxes' corners along a side, in pixels of thermal at `size`."""
    width, height = other[2] - other[0], other[3] - other[1]
    across = [abs(box[i] - other[i]) / width for i in (0, 2)]
    down = [abs(box[i] - other[i]) / height for i in (1, 3)]
    return max(across + down) * size


def edge_strength(image: Pixels) -> Pixels:
    """Edge strength of a gray image, float [height, width]: 0 in flat regions, about 1 on edges."""
    return np.sqrt((_edges(image.astype(np.float32), 24) ** 2).sum(-1))


def _view(image: Pixels, box: Box, size: int) -> Pixels:
    """The box of an image at size x size, antialiased; border pixels are repeated outside."""
    height, width = image.shape
    across, down = (box[2] - box[0]) * width / size, (box[3] - box[1]) * height / size
    if (shrinking := max(across, down)) > 1.2:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * shrinking)
    matrix = np.array(
        [
            [across, 0, box[0] * width + across / 2 - 0.5],
            [0, down, box[1] * height + down / 2 - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    view = cv2.warpAffine(image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return view.astype(np.float32)


def _edges(image: Pixels, surroundings: int) -> Pixels:
    """Vectors of doubled edge directions [height, width, 2], as long as the edge is strong: about 1
    at most."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    energy = dx * dx + dy * dy
    around = cv2.GaussianBlur(energy, (0, 0), surroundings / 2)
    length = np.sqrt(energy) * np.sqrt(around + energy.mean() / 16) + 1e-6
    return np.dstack([(dx * dx - dy * dy) / length, 2 * dx * dy / length])


def _smooth_strength(image: Pixels) -> Pixels:
    return cv2.GaussianBlur(edge_strength(image), (0, 0), 2.0).astype(np.float32)


def _correlate(field: Pixels, template: Pixels) -> Pixels:
    products = [
        cv2.matchTemplate(
            np.ascontiguousarray(field[..., i]),
            np.ascontiguousarray(template[..., i]),
            cv2.TM_CCORR,
        )
        for i in (0, 1)
    ]
    ones = np.ones(template.shape[:2], np.float32)
    energy = cv2.matchTemplate((field**2).sum(-1), ones, cv2.TM_CCORR)
    return sum(products) / np.sqrt(np.maximum(energy, 1e-3) * ((template**2).sum() + 1e-3))


def _subpixel_peak(values: Pixels, index: int) -> float:
    """Offset of the parabola's peak through a maximum and its neighbors, from -0.5 to 0.5."""
    if not 0 < index < len(values) - 1:
        return 0.0
    before, at, after = (float(value) for value in values[index - 1 : index + 2])
    curve = before - 2 * at + after
    return (before - after) / (2 * curve) if curve < 0 else 0.0


def _scaled(box: Box, scale: float) -> Box:
    return _within(box, (0.5 - scale / 2, 0.5 - scale / 2, 0.5 + scale / 2, 0.5 + scale / 2))


def _moved(box: Box, dx: float, dy: float) -> Box:
    return _within(box, (dx, dy, 1 + dx, 1 + dy))


def _within(outer: Box, inner: Box) -> Box:
    """`inner`, in fractions of `outer`, as fractions of the image."""
    width, height = outer[2] - outer[0], outer[3] - outer[1]
    return (
        outer[0] + inner[0] * width,
        outer[1] + inner[1] * height,
        outer[0] + inner[2] * width,
        outer[1] + inner[3] * height,
    )
