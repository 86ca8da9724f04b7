"""Conditions a latent-to-image decoder on an RGB image at each of its resolutions."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Rgb

NEGATIVE_SLOPE = 0.2
"""The leaky ReLU after each `RgbConv` multiplies negative values by this."""


RgbEncoder = Literal["pooled", "strided"]

ConditionFeatures = Callable[[int], Float[Tensor, "batch channels rows columns"]]
"""The condition's features of some images, by the resolution of the decoder."""


class RgbConv(nn.Conv2d):
    """A convolution of the RGB image, or of features of it; 3 x 3 unless its stride is 2.

    Its initial weights preserve the variance (He et al. 2015, arXiv 1502.01852), and `initialize`
    keeps them: with DCGAN's N(0, 0.02) the image would have a fifteenth of the latent's influence.
    """

    def __init__(self, channels: int, *, in_channels: int = 3, stride: int = 1) -> None:
        super().__init__(in_channels, channels, 3 if stride == 1 else 4, stride, 1)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, a=NEGATIVE_SLOPE)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ConditionPyramid(nn.Module):
    """The RGB image at each resolution of a decoder, to concatenate to its features.

    `pooled`: at resolution r, average pooling to r x r, one 3 x 3 convolution to `channels`, leaky
    ReLU. `strided`: each resolution has a convolution of the features at the next larger one, the
    largest of the image itself, so that small resolutions see what large regions of it show and not
    only their mean color (a U-Net's encoder with as many channels everywhere).

    With 0 channels the pooled image itself, which has 3, whatever the encoder. With None the
    decoder is unconditional, as in its paper, and nothing is concatenated.
    """

    channels: int
    """How many channels `concatenate` adds."""

    def __init__(
        self,
        resolutions: list[int],
        channels: int | None = 32,
        *,
        encoder: RgbEncoder = "pooled",
        size: int | None = None,
    ) -> None:
        """
        Args:
            resolutions: of the decoder, each twice the one before it.
            size: of the RGB images, for the strided encoder: the largest resolution or twice that.
        """
        super().__init__()
        self.is_conditional = channels is not None
        self.channels = (channels or 3) if self.is_conditional else 0
        self.is_strided = encoder == "strided" and bool(channels)
        convolutions: dict[str, nn.Module] = {}
        if self.is_strided:
            assert channels
            assert size
            in_channels, previous = 3, size
            for r in reversed(resolutions):
                convolutions[str(r)] = RgbConv(
                    channels, in_channels=in_channels, stride=previous // r
                )
                in_channels, previous = channels, r
        elif channels:
            convolutions = {str(r): RgbConv(channels) for r in resolutions}
        self.from_rgb = nn.ModuleDict(convolutions)

    def encode(self, rgb: Rgb) -> ConditionFeatures:
        """The condition's features of these images."""
        if not self.is_strided:
            return partial(self._pooled, rgb)
        by_resolution: dict[int, Tensor] = {}
        features = rgb
        for resolution, convolution in self.from_rgb.items():
            features = F.leaky_relu(convolution(features), NEGATIVE_SLOPE)
            by_resolution[int(resolution)] = features
        return by_resolution.__getitem__

    def _pooled(self, rgb: Rgb, resolution: int) -> Tensor:
        pooled = F.adaptive_avg_pool2d(rgb, resolution)
        if not self.from_rgb:
            return pooled
        return F.leaky_relu(self.from_rgb[str(resolution)](pooled), NEGATIVE_SLOPE)

    def concatenate(self, features: Tensor, condition: ConditionFeatures) -> Tensor:
        """`features` [batch, c, r, r] and the condition's at r, [batch, c + channels, r, r]."""
        if not self.is_conditional:
            return features
        return torch.cat([features, condition(features.shape[-1]).to(features.dtype)], dim=1)
