"""The PatchGAN discriminator of pix2pix (Isola et al. 2017, appendix 6.1.2)."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.networks.initialization import normalization


def fitting_layers(layers: int, size: int) -> int:
    """`layers`, reduced until the receptive field of a patch fits `size` pixels; at least 1."""
    return max(1, min(layers, int(math.log2(size)) - 3))


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches: of 70 x 70 pixels with three strided layers."""

    def __init__(
        self, *, in_channels: int, width: int = 64, layers: int = 3, norm: str = "batch"
    ) -> None:
        super().__init__()
        # The bias of batch normalization replaces that of the convolution before it.
        bias = norm != "batch"
        channels = [width * min(2**layer, 8) for layer in range(layers + 1)]
        modules: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        for layer in range(1, layers + 1):
            stride = 2 if layer < layers else 1
            modules += [
                nn.Conv2d(channels[layer - 1], channels[layer], 4, stride, 1, bias=bias),
                normalization(norm, channels[layer]),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*modules, nn.Conv2d(channels[-1], 1, 4, 1, 1))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """Logits, one a patch."""
        return self.layers(images)


class MultiScale(nn.Module):
    """Discriminators that score the same image at several scales, each half as large as the last.

    Wang et al. 2018 (pix2pixHD, arXiv 1711.11585).
    """

    def __init__(self, scales: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scales)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """The scores of each scale, the finest first."""
        scores: list[Tensor] = []
        for discriminator in self.scales:
            scores.append(discriminator(images))
            images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
        return scores
