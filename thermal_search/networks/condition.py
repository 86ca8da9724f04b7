"""How a latent-to-image decoder sees an RGB image, without becoming an encoder-decoder."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Rgb

SLOPE = 0.2
"""Of the leaky rectifier behind an eye."""


class RgbConv(nn.Conv2d):
    """A 3 x 3 convolution that sees the RGB image.

    Its first weights keep an image's spread (He et al. 2015, arXiv 1502.01852), and `initialize`
    leaves them alone: through DCGAN's N(0, 0.02) an image would count a fifteenth of the latent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(3, channels, 3, 1, 1)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, a=SLOPE)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class ConditionPyramid(nn.Module):
    """The RGB image beside a decoder's features, at each of its resolutions.

    At resolution r: average pooling to r x r, one 3 x 3 convolution to `channels`, leaky ReLU. With
    0 channels the pooled image itself. The latent stays at the root, as in the decoder's paper.
    """

    def __init__(self, resolutions: list[int], channels: int = 32) -> None:
        super().__init__()
        self.resolutions, self.channels = resolutions, channels or 3
        self.eyes = nn.ModuleDict(
            {str(r): RgbConv(channels) for r in resolutions} if channels else {}
        )

    def at(self, rgb: Rgb, resolution: int) -> Float[Tensor, "batch channels rows columns"]:
        """The image as it is seen at one of the resolutions."""
        seen = F.adaptive_avg_pool2d(rgb, resolution)
        return F.leaky_relu(self.eyes[str(resolution)](seen), SLOPE) if self.eyes else seen

    def beside(self, features: Tensor, rgb: Rgb) -> Tensor:
        """`features` [batch, c, r, r] with the image at r concatenated."""
        seen = self.at(rgb, features.shape[-1])
        return torch.cat([features, seen.to(features.dtype)], dim=1)
