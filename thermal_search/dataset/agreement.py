"""Whether an RGB and a thermal picture show the same scene.

Thermal brightness tells nothing of visible brightness, but both have edges where things end. The
score is the normalized correlation of their fields of edge directions (orientation correlation,
Fitch et al., BMVC 2002), with the angle doubled, so that an edge inverted in thermal counts as the
same edge; maximised over small shifts and over the scales by which two cameras' fields of view
differ, so that it tells wrong scenes from pictures that are merely not aligned yet.

On 176 pairs of RoadScene (benchmarks/agreement.py) true pairs score 0.33 in the median, and wrong
ones 0.06. How well it tells pictures that are not aligned was not measured.
"""

from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

SIZE = 96
"""Pictures are compared at this height and width in pixels."""

SCALES = (1.0, 0.92, 0.84)
"""Shares of the RGB picture that thermal may show: FLIR ADAS v2's cameras differ by 0.83."""

BLOCK = 12
"""An edge is measured against its surroundings, of about this many pixels."""

BORDER = 3
"""Pixels at the rim that do not count: resampling and cameras leave edges there."""

LARGEST_SHIFT = 6
_FIELD = SIZE - 2 * BORDER
_PADDED = _FIELD + LARGEST_SHIFT
"""Wide enough that no shift wraps around."""

_WAVES = np.exp(
    2j
    * np.pi
    / _PADDED
    * np.outer(np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1), np.arange(_PADDED))
).astype(np.complex64)
"""The inverse Fourier transform, of the shifts that are looked at alone."""


def edge_agreement(rgb: Array, thermal: Array) -> float:
    """From about 0, unrelated, to 1: uint8 [height, width, 3] and [height, width], any sizes."""
    colour, heat = Image.fromarray(rgb).convert("L"), Image.fromarray(thermal)
    fields = [_edges(_shrink(colour, scale)) for scale in SCALES]
    spectra = np.fft.fft2(np.stack([_edges(_shrink(heat, 1.0)), *fields]), (_PADDED, _PADDED))
    products = np.conj(spectra[1:]) * spectra[0]
    correlations = (_WAVES @ products @ _WAVES.T).real / _PADDED**2
    return float(correlations.max())


def _shrink(picture: Image.Image, share: float) -> Image.Image:
    """The central share of a picture at SIZE x SIZE pixels."""
    width, height = picture.size
    left, top = width * (1 - share) / 2, height * (1 - share) / 2
    box = (left, top, width - left, height - top)
    return picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box)


def _edges(picture: Image.Image) -> Array:
    """The field of doubled edge directions, complex [_FIELD, _FIELD]: mean 0, norm 1; 0 if flat."""
    pixels = np.asarray(picture, np.float32)
    # Sobel's smoothing across the edge, so that the grid leaves no trace of its own.
    rows = pixels[:-2] + 2 * pixels[1:-1] + pixels[2:]
    columns = pixels[:, :-2] + 2 * pixels[:, 1:-1] + pixels[:, 2:]
    gradient = np.zeros((SIZE, SIZE), np.complex64)
    gradient[1:-1, 1:-1] = (rows[:, 2:] - rows[:, :-2]) + 1j * (columns[2:] - columns[:-2])
    strength = np.abs(gradient)
    energy = strength**2
    overall = float(energy.mean())
    if overall < 0.05:
        return np.zeros((_FIELD, _FIELD), np.complex64)
    around = Image.fromarray(energy).reduce(BLOCK).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    # Squaring doubles the angle; dividing, that a few strong edges are not all there is.
    field = gradient**2 / (np.maximum(strength, 1e-6) * np.sqrt(np.asarray(around) + overall / 16))
    inner = field[BORDER:-BORDER, BORDER:-BORDER]
    # Roads have a horizon and houses are upright: what all scenes share is no agreement.
    inner = inner - inner.mean()
    return inner / np.linalg.norm(inner)
