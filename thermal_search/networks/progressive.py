"""What Progressive GAN and StyleGAN share (Karras et al. 2018 and 2019, arXiv 1710.10196 and
1812.04948): equalized learning rates, pixel normalization, minibatch deviation, and growth."""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Rgb, Thermal

BASE_RESOLUTION = 4
"""Height and width of the smallest features."""

GAIN = math.sqrt(2)
"""Of weights before a leaky rectifier."""


def channels_by_resolution(size: int, base: int = 8192, most: int = 512) -> dict[int, int]:
    """Channels by resolution, from 4 to `size`: `base` / (resolution / 2), at most `most`."""
    resolutions = [
        BASE_RESOLUTION * 2**step for step in range((size // BASE_RESOLUTION).bit_length())
    ]
    return {r: min(base * 2 // r, most) for r in resolutions}


class EqualizedConv2d(nn.Module):
    """A convolution whose weights are N(0, 1) and scaled when used, so that all learn alike."""

    def __init__(self, before: int, wide: int, kernel: int, *, gain: float = GAIN) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(wide, before, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(wide))
        self.scale = gain / math.sqrt(before * kernel**2)
        self.padding = kernel // 2

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.weight * self.scale, self.bias, padding=self.padding)


class EqualizedLinear(nn.Module):
    """The same for a dense layer. `lr_multiplier` slows it down further (StyleGAN's mapping)."""

    def __init__(
        self,
        before: int,
        wide: int,
        *,
        gain: float = GAIN,
        lr_multiplier: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(wide, before) / lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(wide)) if bias else None
        self.scale = gain / math.sqrt(before) * lr_multiplier
        self.lr_multiplier = lr_multiplier

    def forward(self, features: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.lr_multiplier
        return F.linear(features, self.weight * self.scale, bias)


def pixel_norm(features: Tensor) -> Tensor:
    """Features of unit mean square over the channels, at each place."""
    with torch.autocast(features.device.type, enabled=False):
        wide = features.float()
        return wide * (wide.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class MinibatchStd(nn.Module):
    """Appends one channel: how far the images of a group differ, so that sameness is seen."""

    def __init__(self, group: int = 4) -> None:
        super().__init__()
        self.group = group

    def forward(self, features: Tensor) -> Tensor:
        group = math.gcd(len(features), self.group)
        with torch.autocast(features.device.type, enabled=False):
            grouped = features.float().unflatten(0, (group, -1))
            variance = grouped.var(0, correction=0)
            deviation = (variance + 1e-8).sqrt().mean((1, 2, 3))
        channel = deviation.repeat(group)[:, None, None, None].expand(-1, 1, *features.shape[2:])
        return torch.cat([features, channel.to(features.dtype)], dim=1)


class Blur(nn.Module):
    """The binomial filter 1 2 1 in both directions."""

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.kernel: Tensor
        # On the device from the start: made anew, every use would wait for it to travel there.
        self.register_buffer("kernel", torch.outer(row, row), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        kernel = self.kernel.to(features.dtype).expand(features.shape[1], 1, 3, 3)
        return _Symmetric.apply(features, kernel)  # pyright: ignore[reportReturnType]


class _Symmetric(torch.autograd.Function):
    """A filter of each channel by a kernel that is the same from both ends.

    It is its own transpose, so its derivative is the filter again. torch's own derivatives of a
    convolution of single channels are many times slower, the second most of all.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)
        with torch.autocast(features.device.type, enabled=False):
            return F.conv2d(features, kernel, padding=1, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kernel,) = ctx.saved_tensors
        return _Symmetric.apply(gradients[0], kernel), None  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Growth:
    """How far a growing network has come."""

    resolution: int
    """Of the images it paints or judges."""

    alpha: float
    """0: the new layers count for nothing yet; 1: they have replaced the old ones."""


def growth_at(
    share: float, *, start: int, size: int, growing: float = 0.65, fading: float = 0.5
) -> Growth:
    """Where growth is at `share` (0 .. 1) of a trial's full budget.

    The first `growing` share of the budget is divided evenly among the doublings from `start` to
    `size`. Each first trains as it is, then fades the next resolution in for its `fading` share.
    """
    doublings = (size // start).bit_length() - 1
    if doublings == 0 or share >= growing:
        return Growth(size, 1.0)
    number, place = divmod(share / growing * doublings, 1)
    resolution = start * 2 ** int(number)
    if place < 1 - fading:
        return Growth(resolution, 1.0)
    return Growth(2 * resolution, (place - (1 - fading)) / fading)


class ProgressiveNetwork(nn.Module):
    """A network that grows. Its growth travels with its weights."""

    def __init__(self, start: Growth) -> None:
        super().__init__()
        self._growth = start
        self.alpha: Tensor
        # The same number as in `growth`: a step that a GPU replays reads it on the device.
        self.register_buffer("alpha", torch.tensor(start.alpha), persistent=False)

    @property
    def growth(self) -> Growth:
        return self._growth

    @growth.setter
    def growth(self, growth: Growth) -> None:
        if growth.alpha != self._growth.alpha:
            self.alpha.fill_(growth.alpha)
        self._growth = growth

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.growth.resolution, self.growth.alpha], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        resolution, alpha = state.tolist()
        self.growth = Growth(int(resolution), alpha)

    @property
    def is_fading(self) -> bool:
        return self.growth.alpha < 1

    def mix(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """What the old layers give and what the new ones do, mixed by alpha."""
        return torch.lerp(coarse.to(fine.dtype), fine, self.alpha.to(fine.dtype))

    def shown(self, images: Tensor) -> Tensor:
        """Images as the network is to see them: new detail counts as its layers do."""
        images = F.avg_pool2d(images, images.shape[-1] // self.growth.resolution)
        if not self.is_fading:
            return images
        return self.mix(F.interpolate(F.avg_pool2d(images, 2), scale_factor=2), images)


def at_full_size(
    thermal: Float[Tensor, "batch 1 rows columns"], size: int
) -> Float[Tensor, "batch 1 height width"]:
    """What a growing generator painted, enlarged to `size` and clipped to -1 .. 1."""
    factor = size // thermal.shape[-1]
    enlarged = thermal if factor == 1 else F.interpolate(thermal, scale_factor=factor)
    return enlarged.clamp(-1, 1)


class GrowingDiscriminator(ProgressiveNetwork):
    """Evaluators (rgb, thermal) pairs at the resolution that growth has reached.

    `blurred` filters before each halving, as StyleGAN does.
    """

    def __init__(
        self,
        *,
        size: int,
        start: Growth,
        in_channels: int = 4,
        base: int = 8192,
        most: int = 512,
        group: int = 4,
        blurred: bool = False,
    ) -> None:
        super().__init__(start)
        channels = channels_by_resolution(size, base, most)
        self.eyes = nn.ModuleDict(
            {str(r): EqualizedConv2d(in_channels, wide, 1) for r, wide in channels.items()}
        )
        self.blocks = nn.ModuleDict(
            {
                str(r): nn.Sequential(
                    EqualizedConv2d(wide, wide, 3),
                    nn.LeakyReLU(0.2),
                    Blur() if blurred else nn.Identity(),
                    EqualizedConv2d(wide, channels[r // 2], 3),
                    nn.LeakyReLU(0.2),
                    nn.AvgPool2d(2),
                )
                for r, wide in channels.items()
                if r > BASE_RESOLUTION
            }
        )
        wide, dense = channels[BASE_RESOLUTION], min(base, most)
        self.head = nn.Sequential(
            MinibatchStd(group) if group > 1 else nn.Identity(),
            EqualizedConv2d(wide + (group > 1), wide, 3),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            EqualizedLinear(wide * BASE_RESOLUTION**2, dense),
            nn.LeakyReLU(0.2),
            EqualizedLinear(dense, 1, gain=1.0),
        )

    def forward(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        """Scores pairs of which both images have the resolution of `growth`."""
        resolution = self.growth.resolution
        pair = torch.cat([rgb, thermal], dim=1)
        features = self._see(pair, resolution)
        while resolution > BASE_RESOLUTION:
            features = self.blocks[str(resolution)](features)
            resolution //= 2
            if self.is_fading and 2 * resolution == self.growth.resolution:
                coarse = self._see(F.avg_pool2d(pair, 2), resolution)
                features = self.mix(coarse, features)
        return self.head(features).flatten().float()

    def _see(self, pair: Tensor, resolution: int) -> Tensor:
        return F.leaky_relu(self.eyes[str(resolution)](pair), 0.2)
