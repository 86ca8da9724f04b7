"""Conditions a latent-to-image decoder on an RGB image, without an encoder."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Rgb

NEGATIVE_SLOPE = 0.2
"""The leaky ReLU after each `RgbConv` multiplies negative values by this."""


class RgbConv(nn.Conv2d):
    """A 3 x 3 convolution of the RGB image.

    Its initial weights preserve the variance (He et al. 2015, arXiv 1502.01852), and `initialize`
    keeps them: with DCGAN's N(0, 0.02) the image would have a fifteenth of the latent's influence.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(3, channels, 3, 1, 1)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, a=NEGATIVE_SLOPE)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ConditionPyramid(nn.Module):
    """The RGB image at each resolution of a decoder, to concatenate to its features.

    At resolution r: average pooling to r x r, one 3 x 3 convolution to `channels`, leaky ReLU. With
    0 channels the pooled image itself, which has 3. With None the decoder is unconditional, as in
    its paper, and nothing is concatenated.
    """

    channels: int
    """How many channels `concatenate` adds."""

    def __init__(self, resolutions: list[int], channels: int | None = 32) -> None:
        super().__init__()
        self.is_conditional = channels is not None
        self.channels = (channels or 3) if self.is_conditional else 0
        self.from_rgb = nn.ModuleDict(
            {str(r): RgbConv(channels) for r in resolutions} if channels else {}
        )

    def features(self, rgb: Rgb, resolution: int) -> Float[Tensor, "batch channels rows columns"]:
        """The condition's features at one of the resolutions."""
        pooled = F.adaptive_avg_pool2d(rgb, resolution)
        if not self.from_rgb:
            return pooled
        return F.leaky_relu(self.from_rgb[str(resolution)](pooled), NEGATIVE_SLOPE)

    def concatenate(self, features: Tensor, rgb: Rgb) -> Tensor:
        """`features` [batch, c, r, r] and the condition at r, [batch, c + channels, r, r]."""
        if not self.is_conditional:
            return features
        condition = self.features(rgb, features.shape[-1])
        return torch.cat([features, condition.to(features.dtype)], dim=1)
