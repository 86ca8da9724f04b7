"""Evaluated frames that look like training frames: scores on them are too good.

Each pair leaves a thumbnail when it is converted. Two pairs are near-duplicates if their thumbnails
of RGB and of thermal correlate almost fully, as those of neighboring frames of a video do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

Array = np.ndarray[Any, Any]

SIDE = 16
"""Height and width of a thumbnail in pixels."""

MIN_CORRELATION = 0.9
"""Of the thumbnails of two pairs that look the same. On RoadScene 4 % of the pairs have another one
so alike, taken by the same camera a second away; drawn scenes that differ reach 0.44."""

MIN_STD = 2.0
"""A thumbnail of less contrast, in gray levels, shows nothing."""

CHUNK = 1024
"""Evaluated frames that are compared at once."""


@dataclass(frozen=True)
class NearDuplicates:
    count: int
    """Evaluated pairs that look like a training pair."""

    evaluated: int
    first: tuple[str, str] | None
    """The names of the first one and of its training pair."""


def thumbnail(rgb: Array, thermal: Array) -> str:
    """Small gray copies of uint8 [3, height, width] and [height, width], in hexadecimal digits."""
    gray = rgb.mean(0, dtype=np.float32).astype(np.uint8)
    small = [cv2.resize(i, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for i in (gray, thermal)]
    return np.stack(small).tobytes().hex()


def find_near_duplicates(
    training: Sequence[tuple[str, str]], evaluated: Sequence[tuple[str, str]]
) -> NearDuplicates:
    """Compares (name, thumbnail) of training pairs with those of evaluated pairs."""
    if not training or not evaluated:
        return NearDuplicates(0, len(evaluated), None)
    known = _normalized([text for _, text in training])
    count, first = 0, None
    for start in range(0, len(evaluated), CHUNK):
        chunk = evaluated[start : start + CHUNK]
        similarity = _normalized([text for _, text in chunk]) @ known.T
        nearest = similarity.argmax(1)
        is_alike = similarity.max(1) >= MIN_CORRELATION
        count += int(is_alike.sum())
        if first is None and is_alike.any():
            index = int(is_alike.argmax())
            first = chunk[index][0], training[int(nearest[index])][0]
    return NearDuplicates(count, len(evaluated), first)


def _normalized(thumbnails: Sequence[str]) -> Array:
    """Rows of unit length whose products are the mean correlation of RGB and thermal."""
    pixels = np.frombuffer(bytes.fromhex("".join(thumbnails)), np.uint8)
    images = pixels.reshape(len(thumbnails), 2, SIDE * SIDE).astype(np.float32)
    images -= images.mean(2, keepdims=True)
    norms = np.linalg.norm(images, axis=2, keepdims=True)
    images = np.where(norms >= MIN_STD * SIDE, images / np.maximum(norms, 1e-6), 0)
    return (images / np.sqrt(2)).reshape(len(thumbnails), -1)
