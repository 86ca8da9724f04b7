"""Whether an RGB and a thermal image show the same scene.

Thermal and visible brightness are unrelated, but both images have edges at the outlines of objects.
The score is the normalized correlation of their fields of edge directions (orientation correlation,
Fitch et al., BMVC 2002). Angles are doubled, so that an edge of inverted contrast is the same edge.
The maximum over small shifts, and over the scales by which two cameras' fields of view differ,
separates wrong scenes from images that are merely not aligned yet.

benchmarks/agreement.py measures it on RoadScene, also on pairs that are shifted and scaled.
"""

from typing import Any

import cv2
import numpy as np
import torch

Array = np.ndarray[Any, Any]

SIZE = 96
"""Height and width in pixels at which images are compared."""

SCALES = (1.0, 0.92, 0.84)
"""Fractions of the RGB image that thermal may show: FLIR ADAS v2's cameras differ by 0.83."""

MAX_SIDE = 128
"""Larger images are shrunk to this first, once for all scales."""

BLOCK = 25
"""Side of the square, in pixels, by whose edge energy an edge is normalized."""

BORDER = 3
"""Pixels at each side that are ignored: resampling and cameras leave edges there."""

MAX_SHIFT = 6
_FIELD = SIZE - 2 * BORDER
_PADDED = _FIELD + MAX_SHIFT
"""Large enough that no shift wraps around."""

_INVERSE_DFT = torch.from_numpy(
    np.exp(
        2j * np.pi / _PADDED * np.outer(np.arange(-MAX_SHIFT, MAX_SHIFT + 1), np.arange(_PADDED))
    ).astype(np.complex64)
)
"""The inverse Fourier transform at the allowed shifts only. It is applied by torch: numpy's BLAS
would keep a second core spinning for a tenth of a second after each product."""


def edge_agreement(rgb: Array, thermal: Array) -> float:
    """From about 0 (unrelated) to 1; uint8 [3, height, width] and [height, width] of any sizes."""
    gray = cv2.addWeighted(rgb[0], 0.299, rgb[1], 0.587, 0)
    gray = _shrink(cv2.addWeighted(gray, 1, rgb[2], 0.114, 0))
    color = np.stack([_spectrum(_central(gray, scale)) for scale in SCALES])
    products = np.conj(color) * _spectrum(_central(_shrink(thermal), 1.0))
    correlations = (_INVERSE_DFT @ torch.from_numpy(products) @ _INVERSE_DFT.T).real / _PADDED**2
    return float(correlations.max())


def _shrink(image: Array) -> Array:
    if max(image.shape) <= MAX_SIDE:
        return image
    return cv2.resize(image, (MAX_SIDE, MAX_SIDE), interpolation=cv2.INTER_AREA)


def _central(image: Array, fraction: float) -> Array:
    """The central fraction of an image, at SIZE x SIZE pixels."""
    height, width = image.shape
    top, left = round(height * (1 - fraction) / 2), round(width * (1 - fraction) / 2)
    return cv2.resize(image[top : height - top, left : width - left], (SIZE, SIZE))


def _spectrum(image: Array) -> Array:
    """Fourier transform of the field of doubled edge directions: complex [_PADDED, _PADDED].

    The field has mean 0 and norm 1; it is 0 if the image is flat.
    """
    across, down = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    squared = cv2.multiply(across, across), cv2.multiply(down, down)
    energy = squared[0] + squared[1]
    overall = cv2.mean(energy)[0]
    padded = np.zeros((_PADDED, _PADDED, 2), np.float32)
    if overall > 0.05:
        # Squaring doubles the angle; the division keeps a few strong edges from dominating.
        around = cv2.blur(energy, (BLOCK, BLOCK)) + (overall / 16)
        length = cv2.sqrt(around * energy + 1e-6)
        field = cv2.merge(
            [
                cv2.divide(squared[0] - squared[1], length),
                cv2.divide(cv2.multiply(across, down, scale=2), length),
            ]
        )[BORDER:-BORDER, BORDER:-BORDER]
        # Roads have a horizon and houses are upright: edges that all scenes share prove nothing.
        field -= np.array(cv2.mean(field)[:2], field.dtype)
        padded[:_FIELD, :_FIELD] = field * (1 / cv2.norm(field))
    return cv2.dft(padded).view(np.complex64)[..., 0]
