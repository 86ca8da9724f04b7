"""Finds where a thermal image lies in its RGB image, by their edges.

Brightness tells nothing across the two, but both have edges where things end. Compared are fields
of edge directions (orientation correlation, Fitch et al., BMVC 2002) with the angle doubled, so
that an edge whose contrast is inverted in thermal is the same edge, each measured against its
surroundings. First over all scales and shifts, coarsely; then closely around what a recording's
frames agree on; last by ECC (Evangelidis & Psarakis, PAMI 2008) on the strength of the edges.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from thermal_search.preparation.alignment.geometry import WHOLE, Box
from thermal_search.preparation.decoding import Pixels

COARSE, FINE = 128, 256
"""Height and width at which images are compared, in pixels."""

SCALES = np.exp(np.linspace(np.log(0.62), np.log(1.34), 27))
"""Shares of the RGB image's sides that thermal may show."""

TEMPLATE = 0.6
"""Central share of the thermal image that is looked for at first; the rim may lie outside."""

CLOSE_SCALES = np.linspace(0.94, 1.06, 9)
REACH = 14
"""Pixels of FINE that the close search looks around."""

CLOSE_TEMPLATE = 0.8


@dataclass(frozen=True)
class Match:
    """Where the thermal image lies in the RGB image, which it may overlap."""

    box: Box
    score: float
    """Normalized correlation of the edges: near 0 where nothing agrees, 1 for equal ones."""


def search(rgb: Pixels, thermal: Pixels) -> Match:
    """Over all scales and shifts. Both are grey, uint8 [height, width], of any sizes."""
    rim = round(COARSE * (1 - TEMPLATE) / 2)
    template = _edges(_view(thermal, WHOLE, COARSE), 12)[rim:-rim, rim:-rim]
    best = Match(WHOLE, -1.0)
    for scale in SCALES:
        size = round(COARSE / scale)
        field = _edges(_view(rgb, WHOLE, size), 12)
        if size < len(template):
            continue
        found = _correlate(field, template)
        _, score, _, (x, y) = cv2.minMaxLoc(found)
        if score > best.score:
            left, top = (x - rim) / size, (y - rim) / size
            box = (left, top, left + COARSE / size, top + COARSE / size)
            best = Match(box, float(score))
    return best


def search_near(rgb: Pixels, thermal: Pixels, near: Box) -> Match:
    """Within 6 % of scale and 14 pixels of 256 around a box."""
    rim = round(FINE * (1 - CLOSE_TEMPLATE) / 2)
    template = _edges(_view(thermal, WHOLE, FINE), 24)[rim:-rim, rim:-rim]
    best = Match(near, -1.0)
    for scale in CLOSE_SCALES:
        box = _scaled(near, scale)
        field = _edges(_view(rgb, box, FINE), 24)
        field = field[rim - REACH : FINE - rim + REACH, rim - REACH : FINE - rim + REACH]
        found = _correlate(field, template)
        _, score, _, (x, y) = cv2.minMaxLoc(found)
        if score > best.score:
            dx = x - REACH + _summit(found[y, :], x)
            dy = y - REACH + _summit(found[:, x], y)
            best = Match(_moved(box, dx / FINE, dy / FINE), float(score))
    return best


def refine(rgb: Pixels, thermal: Pixels, near: Box) -> Match | None:
    """To parts of a pixel, from a box that is nearly right; None where ECC finds no way."""
    still = _strength(_view(thermal, WHOLE, FINE))
    moving = _strength(_view(rgb, near, FINE))
    whole = np.full(still.shape, 255, np.uint8)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-4)
    try:
        score, warp = cv2.findTransformECC(
            still, moving, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, criteria, whole, 1
        )
    except cv2.error:
        return None
    # What is kept of the affine transform is scale and shift, about the center.
    center = (FINE - 1) / 2
    middle = warp[:, :2] @ [center, center] + warp[:, 2] + 0.5
    across, down = float(warp[0, 0]), float(warp[1, 1])
    left, top = middle[0] / FINE - across / 2, middle[1] / FINE - down / 2
    return Match(_within(near, (left, top, left + across, top + down)), float(score))


def distance(box: Box, other: Box, size: int) -> float:
    """How far apart the corners of two boxes are at most, in pixels of thermal at `size`."""
    width, height = other[2] - other[0], other[3] - other[1]
    across = [abs(box[i] - other[i]) / width for i in (0, 2)]
    down = [abs(box[i] - other[i]) / height for i in (1, 3)]
    return max(across + down) * size


def edge_strength(image: Pixels) -> Pixels:
    """Of a grey image: float [height, width], 0 where it is even, about 1 on an edge."""
    return np.sqrt((_edges(image.astype(np.float32), 24) ** 2).sum(-1))


def _view(image: Pixels, box: Box, size: int) -> Pixels:
    """The box of an image at size x size, antialiased; beyond the rim its last pixels."""
    height, width = image.shape
    across, down = (box[2] - box[0]) * width / size, (box[3] - box[1]) * height / size
    if (larger := max(across, down)) > 1.2:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 * larger)
    matrix = np.array(
        [
            [across, 0, box[0] * width + across / 2 - 0.5],
            [0, down, box[1] * height + down / 2 - 0.5],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    viewed = cv2.warpAffine(
        image, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return viewed.astype(np.float32)


def _edges(image: Pixels, surroundings: int) -> Pixels:
    """Doubled edge directions [height, width, 2], the longer the stronger, about 1 at most."""
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    dx, dy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    energy = dx * dx + dy * dy
    around = cv2.GaussianBlur(energy, (0, 0), surroundings / 2)
    length = np.sqrt(energy) * np.sqrt(around + energy.mean() / 16) + 1e-6
    return np.dstack([(dx * dx - dy * dy) / length, 2 * dx * dy / length])


def _strength(image: Pixels) -> Pixels:
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


def _summit(values: Pixels, place: int) -> float:
    """The top of the parabola through a maximum and its neighbors, from -0.5 to 0.5."""
    if not 0 < place < len(values) - 1:
        return 0.0
    before, at, after = (float(value) for value in values[place - 1 : place + 2])
    curve = before - 2 * at + after
    return (before - after) / (2 * curve) if curve < 0 else 0.0


def _scaled(box: Box, scale: float) -> Box:
    return _within(box, (0.5 - scale / 2, 0.5 - scale / 2, 0.5 + scale / 2, 0.5 + scale / 2))


def _moved(box: Box, dx: float, dy: float) -> Box:
    return _within(box, (dx, dy, 1 + dx, 1 + dy))


def _within(outer: Box, inner: Box) -> Box:
    """`inner`, in shares of `outer`, as shares of the image."""
    width, height = outer[2] - outer[0], outer[3] - outer[1]
    return (
        outer[0] + inner[0] * width,
        outer[1] + inner[1] * height,
        outer[0] + inner[2] * width,
        outer[1] + inner[3] * height,
    )
