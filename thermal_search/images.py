"""The images that flow through the platform, and the two ranges they live in.

At rest (Parquet, PNG):  uint8,   0 .. 255, channels last.
In networks:             float32, -1 .. 1,  channels first.

Thermal is one channel of 8-bit, gain-controlled pixels: -1 is the coldest and +1 the hottest value
the camera showed. It is not a temperature in degrees.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Rgb = Float[Tensor, "batch 3 height width"]
Thermal = Float[Tensor, "batch 1 height width"]
Latent = Float[Tensor, "batch latent"]


@dataclass(frozen=True)
class Batch:
    """Frames in network range. The same frames side by side where an architecture needs pairs,
    independently drawn ones where it does not."""

    rgb: Rgb
    thermal: Thermal


def to_network_range(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 .. 255 -> -1 .. 1."""
    return pixels.float().div_(127.5).sub_(1)


def to_pixels(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """-1 .. 1 -> 0 .. 255, rounded to the nearest; values outside the range are clipped."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
