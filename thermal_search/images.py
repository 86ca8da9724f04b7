"""The images that flow through the platform, and the two ranges they live in.

In PNGs:              uint8,   0 .. 255, channels last.
In shards:            uint8,   0 .. 255, channels first: a batch is read by copying, no more.
In networks:          float32, -1 .. 1,  channels first.

Thermal is one channel. Of 8-bit, gain-controlled pixels -1 is the coldest and +1 the hottest value
the camera showed, no temperature in degrees. Of 16-bit radiometric counts it is: `Temperatures`
says which degrees -1 and +1 are.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8, UInt16
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


@dataclass(frozen=True)
class Temperatures:
    """What the 16-bit counts of a radiometric camera mean, and where they lie in network range.

    FLIR's T-linear counts are 0.04 K each in the low gain of its cameras and 0.01 K in the high
    one, from absolute zero on.
    """

    low: float
    """Degrees Celsius at -1; what is colder is shown as -1."""

    high: float
    """Degrees Celsius at +1."""

    kelvin_per_count: float = 0.04
    celsius_at_zero: float = -273.15
    """Degrees Celsius of the count 0."""

    def images(self, counts: UInt16[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Counts -> -1 .. 1."""
        celsius = counts.float().mul_(self.kelvin_per_count).add_(self.celsius_at_zero)
        return celsius.sub_(self.low).mul_(2 / (self.high - self.low)).sub_(1).clamp_(-1, 1)

    def celsius(self, images: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """-1 .. 1 -> degrees Celsius."""
        return (images.float() + 1) * ((self.high - self.low) / 2) + self.low


def to_network_range(pixels: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 .. 255 -> -1 .. 1."""
    return pixels.float().div_(127.5).sub_(1)


def to_pixels(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """-1 .. 1 -> 0 .. 255, rounded to the nearest; values outside the range are clipped."""
    return images.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
