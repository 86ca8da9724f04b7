"""The PatchGAN discriminator of pix2pix (Isola et al. 2017, appendix 6.1.2)."""

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.networks.initialization import normalization
from thermal_search.networks.spectral_norm import SpectralNetwork

FEATURE_MATCHING_LAYERS = 4
"""Layers over which pix2pixHD's release sums; with this factor its weight holds for any number."""


def fitting_layers(layers: int, size: int) -> int:
    """`layers`, reduced until the receptive field of a patch fits `size` pixels; at least 1."""
    return max(1, min(layers, int(math.log2(size)) - 3))


class PatchDiscriminator(SpectralNetwork):
    """Scores overlapping patches: of 70 x 70 pixels with three strided layers.

    Has spectral normalization after a call of `apply_spectral_norm`.
    """

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
        return self.features(images)[-1]

    def features(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> list[Float[Tensor, "batch _ _ _"]]:
        """The features after each activation, and last the logits."""
        features: list[Tensor] = []
        with parametrize.cached():
            self.cache_weights()
            for layer in self.layers:
                images = layer(images)
                if isinstance(layer, nn.LeakyReLU):
                    features.append(images)
        return [*features, images]


class MultiScale(nn.Module):
    """Discriminators that score the same image at several scales, each half as large as the last.

    Wang et al. 2018 (pix2pixHD, arXiv 1711.11585).
    """

    def __init__(self, scales: Sequence[nn.Module]) -> None:
        super().__init__()
        self.scales = nn.ModuleList(scales)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> list[Tensor]:
        """The scores of each scale, the finest first."""
        return [scale(image) for scale, image in self._with_images(images)]

    def features(self, images: Float[Tensor, "batch channels height width"]) -> list[list[Tensor]]:
        """The features of each scale, if all scales are `PatchDiscriminator`s."""
        features: list[list[Tensor]] = []
        for scale, image in self._with_images(images):
            assert isinstance(scale, PatchDiscriminator)
            features.append(scale.features(image))
        return features

    def _with_images(self, images: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
        """Each discriminator with the images at its scale."""
        for number, discriminator in enumerate(self.scales):
            if number:
                images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
            yield discriminator, images


def patch_discriminators(
    scales: int, *, in_channels: int, size: int, width: int = 64, layers: int = 3, norm: str
) -> MultiScale:
    """A `PatchDiscriminator` for each of `scales` scales, with fewer layers at small scales."""
    return MultiScale(
        [
            PatchDiscriminator(
                in_channels=in_channels,
                width=width,
                layers=fitting_layers(layers, size >> scale),
                norm=norm,
            )
            for scale in range(scales)
        ]
    )


def feature_matching_loss(discriminator: MultiScale, real: Tensor, fake: Tensor) -> Tensor:
    """The L1 distance of the discriminator's features of generated images to those of real ones.

    Wang et al. 2018 (pix2pixHD). The mean over features, layers and scales, times 4: the release
    sums over the 4 layers of its discriminators. Call it in the generator's turn.
    """
    with torch.no_grad():
        real_features = discriminator.features(real)
    distances = [
        F.l1_loss(fake_layer.float(), real_layer.float())
        for real_scale, fake_scale in zip(real_features, discriminator.features(fake), strict=True)
        for real_layer, fake_layer in zip(real_scale[:-1], fake_scale[:-1], strict=True)
    ]
    return FEATURE_MATCHING_LAYERS * torch.stack(distances).mean()
