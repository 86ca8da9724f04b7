"""Whether an RGB and a thermal image show the same scene.

Thermal brightness tells nothing of visible brightness, but both have edges where things end. The
score is the normalized correlation of their fields of edge directions (orientation correlation,
Fitch et al., BMVC 2002), with the angle doubled, so that an edge inverted in thermal counts as the
same edge; maximized over small shifts and over the scales by which two cameras' fields of view
differ, so that it tells wrong scenes from images that are merely not aligned yet.

benchmarks/agreement.py measures it on RoadScene, also on pairs that are shifted and scaled.
"""

from typing import Any

import cv2
import numpy as np
import torch

Array = np.ndarray[Any, Any]

SIZE = 96
"""Images are compared at this height and width in pixels."""

SCALES = (1.0, 0.92, 0.84)
"""Shares of the RGB image that thermal may show: FLIR ADAS v2's cameras differ by 0.83."""

LARGEST = 128
"""Larger images are shrunk to this first, once for all scales."""

BLOCK = 25
"""An edge is measured against its surroundings, a square of so many pixels."""

BORDER = 3
"""Pixels at the rim that do not count: resampling and cameras leave edges there."""

LARGEST_SHIFT = 6
_FIELD = SIZE - 2 * BORDER
_PADDED = _FIELD + LARGEST_SHIFT
"""Wide enough that no shift wraps around."""

_WAVES = torch.from_numpy(
    np.exp(
        2j
        * np.pi
        / _PADDED
        * np.outer(np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1), np.arange(_PADDED))
    ).astype(np.complex64)
)
"""The inverse Fourier transform, of the shifts that are looked at alone. By torch: numpy's BLAS
would keep a second core spinning for a tenth of a second after each product."""


def edge_agreement(rgb: Array, thermal: Array) -> float:
    """From about 0, unrelated, to 1: uint8 [3, height, width] and [height, width], any sizes."""
    grey = cv2.addWeighted(rgb[0], 0.299, rgb[1], 0.587, 0)
    grey = _shrink(cv2.addWeighted(grey, 1, rgb[2], 0.114, 0))
    color = np.stack([_spectrum(_central(grey, scale)) for scale in SCALES])
    products = np.conj(color) * _spectrum(_central(_shrink(thermal), 1.0))
    correlations = (_WAVES @ torch.from_numpy(products) @ _WAVES.T).real / _PADDED**2
    return float(correlations.max())


def _shrink(image: Array) -> Array:
    if max(image.shape) <= LARGEST:
        return image
    return cv2.resize(image, (LARGEST, LARGEST), interpolation=cv2.INTER_AREA)


def _central(image: Array, share: float) -> Array:
    """The central share of an image at SIZE x SIZE pixels."""
    height, width = image.shape
    top, left = round(height * (1 - share) / 2), round(width * (1 - share) / 2)
    return cv2.resize(image[top : height - top, left : width - left], (SIZE, SIZE))


def _spectrum(image: Array) -> Array:
    """Of the field of doubled edge directions, of mean 0 and norm 1: complex [_PADDED, _PADDED].

    0 where the image is flat.
    """
    across, down = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    squared = cv2.multiply(across, across), cv2.multiply(down, down)
    energy = squared[0] + squared[1]
    overall = cv2.mean(energy)[0]
    padded = np.zeros((_PADDED, _PADDED, 2), np.float32)
    if overall > 0.05:
        # Squaring doubles the angle; dividing, that a few strong edges are not all there is.
        around = cv2.blur(energy, (BLOCK, BLOCK)) + (overall / 16)
        length = cv2.sqrt(around * energy + 1e-6)
        field = cv2.merge(
            [
                cv2.divide(squared[0] - squared[1], length),
                cv2.divide(cv2.multiply(across, down, scale=2), length),
            ]
        )[BORDER:-BORDER, BORDER:-BORDER]
        # Roads have a horizon and houses are upright: what all scenes share is no agreement.
        field -= np.array(cv2.mean(field)[:2], field.dtype)
        padded[:_FIELD, :_FIELD] = field * (1 / cv2.norm(field))
    return cv2.dft(padded).view(np.complex64)[..., 0]
