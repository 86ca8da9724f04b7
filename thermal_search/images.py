"""The types of images and their value ranges.

In PNGs:              uint8,   0 .. 255, channels last.
In shards:            uint8,   0 .. 255, channels first, so that a batch is a plain copy.
In networks:          float32, -1 .. 1,  channels first.

Thermal images have one channel. In 8-bit, gain-controlled images -1 is the coldest and +1 the
hottest value of the camera's own range, not a temperature. In 16-bit radiometric images the values
are temperatures: `Temperatures` holds the degrees Celsius of -1 and +1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8, UInt16
from torch import Tensor

Rgb = Float[Tensor, "batch 3 height width"]
Thermal = Float[Tensor, "batch 1 height width"]
Latent = Float[Tensor, "batch latent"]


MAX_DEGREES = 1e6
"""A larger number is no temperature, and would overflow."""


@dataclass(frozen=True)
class Batch:
    """Frames in network range: the same frames if the architecture needs pairs, else unrelated."""

    rgb: Rgb
    thermal: Thermal


@dataclass(frozen=True)
class Temperatures:
    """The temperatures of a radiometric camera's 16-bit counts, and their network range.

    FLIR's T-linear counts start at absolute zero. A count is 0.04 K in low gain, 0.01 K in high.
    """

    low: float
    """Degrees Celsius at -1; lower temperatures are clipped."""

    high: float
    """Degrees Celsius at +1; higher temperatures are clipped."""

    kelvin_per_count: float = 0.04
    celsius_at_zero: float = -273.15
    """Degrees Celsius of the count 0."""

    def __post_init__(self) -> None:
        numbers = (self.low, self.high, self.kelvin_per_count, self.celsius_at_zero)
        if not (all(abs(n) <= MAX_DEGREES for n in numbers) and self.kelvin_per_count > 0):
            raise ValueError(
                f"temperatures must be up to {MAX_DEGREES:g}, with kelvin per count above 0"
            )
        if not self.low < self.high:
            raise ValueError("low must be below high")

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
