"""The PatchGAN discriminator of pix2pix (Isola et al. 2017, appendix 6.1.2)."""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.networks.initialization import normalization


def fitting_layers(layers: int, size: int) -> int:
    """At most so many strided layers that the receptive field stays inside the image."""
    return max(1, min(layers, int(math.log2(size)) - 3))


class PatchDiscriminator(nn.Module):
    """Scores overlapping patches; three strided layers see 70 x 70 pixels each."""

    def __init__(
        self, *, in_channels: int, width: int = 64, layers: int = 3, norm: str = "batch"
    ) -> None:
        super().__init__()
        bias = norm != "batch"
        parts: list[nn.Module] = [nn.Conv2d(in_channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        wide = width
        for layer in range(1, layers + 1):
            before, wide = wide, min(width * 2**layer, 8 * width)
            stride = 2 if layer < layers else 1
            parts += [
                nn.Conv2d(before, wide, 4, stride, 1, bias=bias),
                normalization(norm, wide),
                nn.LeakyReLU(0.2),
            ]
        self.layers = nn.Sequential(*parts, nn.Conv2d(wide, 1, 4, 1, 1))

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """Logits, one a patch."""
        return self.layers(images)


class MultiScale(nn.Module):
    """Discriminators that judge the same image, each at half the size of the one before.

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
