"""What Progressive GAN and StyleGAN share: equalized learning rates, pixel normalization, minibatch
standard deviation and progressive growing.

Karras et al. 2018 (arXiv 1710.10196) and 2019 (arXiv 1812.04948).
"""

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
"""Gain of weights before a leaky ReLU."""


def progressive_channels(
    size: int, channel_base: int = 8192, channel_max: int = 512
) -> dict[int, int]:
    """Channels by resolution, from 4 to `size`: min(2 * channel_base // r, channel_max) at r."""
    resolutions = [
        BASE_RESOLUTION * 2**step for step in range((size // BASE_RESOLUTION).bit_length())
    ]
    return {r: min(channel_base * 2 // r, channel_max) for r in resolutions}


class EqualizedConv2d(nn.Module):
    """A convolution with an equalized learning rate: weights start at N(0, 1) and are scaled by
    He's constant in each forward pass."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, gain: float = GAIN
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, kernel_size, kernel_size))
        nn.init.normal_(self.weight)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.scale = gain / math.sqrt(in_channels * kernel_size**2)
        self.padding = kernel_size // 2

    def forward(self, features: Tensor) -> Tensor:
        return F.conv2d(features, self.weight * self.scale, self.bias, padding=self.padding)


class BlurredConv2d(EqualizedConv2d):
    """A convolution whose output is blurred before the bias is added, as in StyleGAN's release: the
    blur pads with zeros, which would weaken the bias along the border."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size)
        self.blur = Blur()

    def forward(self, features: Tensor) -> Tensor:
        convolved = F.conv2d(features, self.weight * self.scale, padding=self.padding)
        blurred = self.blur(convolved)
        return blurred + self.bias.to(blurred.dtype)[:, None, None]


class EqualizedLinear(nn.Module):
    """A linear layer with an equalized learning rate.

    `lr_multiplier` scales its effective learning rate, as in StyleGAN's mapping network.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        gain: float = GAIN,
        lr_multiplier: float = 1.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        with torch.no_grad():
            self.weight.normal_().div_(lr_multiplier)
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.scale = gain / math.sqrt(in_features) * lr_multiplier
        self.lr_multiplier = lr_multiplier

    def forward(self, features: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.lr_multiplier
        return F.linear(features, self.weight * self.scale, bias)


def pixel_norm(features: Tensor) -> Tensor:
    """`features` divided at each pixel by their root mean square over the channels, in float32."""
    with torch.autocast(features.device.type, enabled=False):
        features = features.float()
        return features * (features.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class MinibatchStd(nn.Module):
    """Appends one channel: the standard deviation over each group of images, averaged over channels
    and pixels. With it the discriminator can detect mode collapse."""

    def __init__(self, group_size: int = 4) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, features: Tensor) -> Tensor:
        group_size = math.gcd(len(features), self.group_size)
        with torch.autocast(features.device.type, enabled=False):
            grouped = features.float().unflatten(0, (group_size, -1))
            variance = grouped.var(0, correction=0)
            std = (variance + 1e-8).sqrt().mean((1, 2, 3))
        channel = std.repeat(group_size)[:, None, None, None].expand(-1, 1, *features.shape[2:])
        return torch.cat([features, channel.to(features.dtype)], dim=1)


class Blur(nn.Module):
    """The binomial filter [1, 2, 1] / 4 along rows and columns."""

    def __init__(self) -> None:
        super().__init__()
        row = torch.tensor([0.25, 0.5, 0.25])
        self.kernel: Tensor
        # A buffer: a kernel created in each forward pass would wait for a copy to the device.
        self.register_buffer("kernel", torch.outer(row, row), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        kernel = self.kernel.to(features.dtype).expand(features.shape[1], 1, 3, 3)
        return _SymmetricFilter.apply(features, kernel)  # pyright: ignore[reportReturnType]


class _SymmetricFilter(torch.autograd.Function):
    """A depthwise convolution with a point-symmetric kernel.

    The filter is its own transpose, so its derivative is the same filter. torch's derivatives of a
    depthwise convolution are many times slower, above all the second one.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(kernel)
        with torch.autocast(features.device.type, enabled=False):
            return F.conv2d(features, kernel, padding=1, groups=len(kernel))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kernel,) = ctx.saved_tensors
        return _SymmetricFilter.apply(gradients[0], kernel), None  # pyright: ignore[reportReturnType]


@dataclass(frozen=True)
class Growth:
    """The stage that progressive growing has reached."""

    resolution: int
    """Height and width of the images that the networks generate and score, in pixels."""

    alpha: float
    """Weight of the layers of `resolution`: below 1 while they fade in."""


@dataclass(frozen=True, kw_only=True)
class GrowthSchedule:
    """The growth of both networks as a function of the budget used.

    The first `growth_fraction` of the budget is divided evenly among the doublings from
    `start_resolution` to `size`. In each of these intervals the networks first train at the
    resolution reached, then fade in the next one during the last `fade_fraction` of the interval.
    """

    size: int
    start_resolution: int
    growth_fraction: float = 0.65
    fade_fraction: float = 0.5

    def at(self, progress: float) -> Growth:
        """The growth at `progress` (0 .. 1) of the full budget."""
        start = min(self.start_resolution, self.size)
        doublings = (self.size // start).bit_length() - 1
        if doublings == 0 or progress >= self.growth_fraction:
            return Growth(self.size, 1.0)
        completed, position = divmod(progress / self.growth_fraction * doublings, 1)
        resolution = start * 2 ** int(completed)
        if position < 1 - self.fade_fraction:
            return Growth(resolution, 1.0)
        alpha = (position - (1 - self.fade_fraction)) / self.fade_fraction
        return Growth(2 * resolution, alpha)


class ProgressiveNetwork(nn.Module):
    """A progressively growing network; its growth is part of its state_dict."""

    def __init__(self, start: Growth) -> None:
        super().__init__()
        self._growth = start
        self.alpha: Tensor
        # `growth.alpha` on the device, from where a replayed CUDA graph reads it.
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

    def blend(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(1 - alpha) * `coarse` + alpha * `fine`."""
        return torch.lerp(coarse.to(fine.dtype), fine, self.alpha.to(fine.dtype))

    def downsample(self, images: Tensor) -> Tensor:
        """Images at the resolution reached, blended with half of it while layers fade in."""
        images = F.avg_pool2d(images, images.shape[-1] // self.growth.resolution)
        if not self.is_fading:
            return images
        return self.blend(F.interpolate(F.avg_pool2d(images, 2), scale_factor=2), images)


def grow(growth: Growth, *networks: ProgressiveNetwork) -> bool:
    """Sets the growth of all `networks` and returns whether new layers begin or end to fade in."""
    before = networks[0].growth.resolution, networks[0].is_fading
    for network in networks:
        network.growth = growth
    return before != (networks[0].growth.resolution, networks[0].is_fading)


def at_full_size(
    thermal: Float[Tensor, "batch 1 rows columns"], size: int
) -> Float[Tensor, "batch 1 height width"]:
    """Generated images, enlarged to `size` by repeating pixels and clipped to -1 .. 1."""
    factor = size // thermal.shape[-1]
    enlarged = thermal if factor == 1 else F.interpolate(thermal, scale_factor=factor)
    return enlarged.clamp(-1, 1)


class ProgressiveDiscriminator(ProgressiveNetwork):
    """Scores (rgb, thermal) pairs at the resolution that growth has reached.

    Features are downsampled between a convolution and its leaky ReLU, as in the code of both
    papers; with `blur`, StyleGAN's, they are filtered before that convolution. With an
    `mbstd_group_size` of 1 there is no minibatch standard deviation.
    """

    def __init__(
        self,
        *,
        size: int,
        start: Growth,
        in_channels: int = 4,
        channel_base: int = 8192,
        channel_max: int = 512,
        mbstd_group_size: int = 4,
        blur: bool = False,
    ) -> None:
        super().__init__(start)
        channels = progressive_channels(size, channel_base, channel_max)
        self.from_image = nn.ModuleDict(
            {
                str(r): EqualizedConv2d(in_channels, out_channels, 1)
                for r, out_channels in channels.items()
            }
        )
        self.blocks = nn.ModuleDict(
            {
                str(r): nn.Sequential(
                    EqualizedConv2d(width, width, 3),
                    nn.LeakyReLU(0.2),
                    Blur() if blur else nn.Identity(),
                    EqualizedConv2d(width, channels[r // 2], 3),
                    nn.AvgPool2d(2),  # which keeps the bias of the convolution
                    nn.LeakyReLU(0.2),
                )
                for r, width in channels.items()
                if r > BASE_RESOLUTION
            }
        )
        width, hidden = channels[BASE_RESOLUTION], min(channel_base, channel_max)
        has_std = mbstd_group_size > 1
        self.head = nn.Sequential(
            MinibatchStd(mbstd_group_size) if has_std else nn.Identity(),
            EqualizedConv2d(width + has_std, width, 3),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            EqualizedLinear(width * BASE_RESOLUTION**2, hidden),
            nn.LeakyReLU(0.2),
            EqualizedLinear(hidden, 1, gain=1.0),
        )

    def forward(self, rgb: Rgb, thermal: Thermal) -> Float[Tensor, "batch"]:
        """One score a pair; both images must have the resolution of `growth`."""
        resolution = self.growth.resolution
        pair = torch.cat([rgb, thermal], dim=1)
        features = self._features(pair, resolution)
        while resolution > BASE_RESOLUTION:
            features = self.blocks[str(resolution)](features)
            resolution //= 2
            if self.is_fading and 2 * resolution == self.growth.resolution:
                coarse = self._features(F.avg_pool2d(pair, 2), resolution)
                features = self.blend(coarse, features)
        return self.head(features).flatten().float()

    def _features(self, pair: Tensor, resolution: int) -> Tensor:
        return F.leaky_relu(self.from_image[str(resolution)](pair), 0.2)
