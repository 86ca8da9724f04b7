"""How a latent-to-image decoder sees an RGB picture, without becoming an encoder-decoder."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Rgb


class ConditionPyramid(nn.Module):
    """The RGB picture beside a decoder's features, at each of its resolutions.

    At resolution r: average pooling to r x r, one 3 x 3 convolution to `channels`, leaky ReLU. With
    0 channels the pooled picture itself. The latent stays at the root, as in the decoder's paper.
    """

    def __init__(self, resolutions: list[int], channels: int = 32) -> None:
        super().__init__()
        self.resolutions, self.channels = resolutions, channels or 3
        self.eyes = nn.ModuleDict(
            {str(r): nn.Conv2d(3, channels, 3, 1, 1) for r in resolutions} if channels else {}
        )

    def at(self, rgb: Rgb, resolution: int) -> Float[Tensor, "batch channels rows columns"]:
        """The picture as it is seen at one of the resolutions."""
        seen = F.adaptive_avg_pool2d(rgb, resolution)
        return F.leaky_relu(self.eyes[str(resolution)](seen), 0.2) if self.eyes else seen

    def beside(self, features: Tensor, rgb: Rgb) -> Tensor:
        """`features` [batch, c, r, r] with the picture at r concatenated."""
        seen = self.at(rgb, features.shape[-1])
        return torch.cat([features, seen.to(features.dtype)], dim=1)
