"""The convolutional pair of DCGAN (Radford et al. 2015, arXiv 1511.06434)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.images import Latent, Rgb, Thermal
from thermal_search.networks.condition import ConditionPyramid, RgbEncoder
from thermal_search.networks.fusion import LateFusion
from thermal_search.networks.initialization import normalization
from thermal_search.networks.spectral_norm import SpectralNetwork

EMBEDDING_SIZE = 128
"""Channels of the RGB image's features at late fusion, as in Reed et al. 2016."""


def dcgan_channels(size: int, width: int, max_multiplier: int) -> dict[int, int]:
    """Channels by resolution, from 4 to size / 2, smallest first.

    `width` at size / 2; each halving of the resolution doubles them, to at most
    `max_multiplier` times `width`.
    """
    resolutions = [4 * 2**step for step in range(size.bit_length()) if 4 * 2**step < size]
    return {r: min(width * (size // 2) // r, max_multiplier * width) for r in resolutions}


def downsampling(in_channels: int, channels: dict[int, int], norm: str = "batch") -> nn.Sequential:
    """Strided convolutions through the resolutions of `channels`, largest first, to 4 x 4.

    `norm` is an affine normalization, whose bias replaces that of the convolution before it.
    """
    layers = nn.Sequential()
    for resolution, out_channels in reversed(channels.items()):
        is_first = resolution == max(channels)
        layers.append(nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=is_first))
        layers.append(nn.Identity() if is_first else normalization(norm, out_channels))
        layers.append(nn.LeakyReLU(0.2))
        in_channels = out_channels
    return layers


class DcganGenerator(nn.Module):
    """A latent vector becomes 4 x 4 features; transposed convolutions upsample them to the image.

    With `condition_channels` None it is the paper's unconditional network.
    """

    def __init__(
        self,
        *,
        size: int,
        latent_size: int = 100,
        width: int = 64,
        max_multiplier: int = 16,
        condition_channels: int | None = 32,
        rgb_encoder: RgbEncoder = "pooled",
        norm: str = "batch",
    ) -> None:
        super().__init__()
        channels = dcgan_channels(size, width, max_multiplier)
        bias = norm == "none"
        self.condition = ConditionPyramid(
            list(channels), condition_channels, encoder=rgb_encoder, size=size
        )
        extra = self.condition.channels
        self.root = nn.Sequential(
            nn.ConvTranspose2d(latent_size, channels[4], 4, 1, 0, bias=bias),
            normalization(norm, channels[4]),
            nn.ReLU(),
        )
        self.levels = nn.ModuleList()
        for resolution, in_channels in channels.items():
            if 2 * resolution < size:
                out_channels = channels[2 * resolution]
                self.levels.append(
                    nn.Sequential(
                        nn.ConvTranspose2d(in_channels + extra, out_channels, 4, 2, 1, bias=bias),
                        normalization(norm, out_channels),
                        nn.ReLU(),
                    )
                )
            else:
                self.levels.append(
                    nn.Sequential(nn.ConvTranspose2d(in_channels + extra, 1, 4, 2, 1), nn.Tanh())
                )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        condition = self.condition.encode(rgb)
        features = self.root(z[:, :, None, None])
        for level in self.levels:
            features = level(self.condition.concatenate(features, condition))
        return features.float()


class DcganDiscriminator(SpectralNetwork):
    """Strided convolutions downsample an (rgb, thermal) pair to 4 x 4, then to one logit.

    Has spectral normalization after a call of `apply_spectral_norm`.

    `late_fusion`: each image has its own convolutions, the RGB image half as wide ones, and their
    features are concatenated at 4 x 4.
    """

    def __init__(
        self,
        *,
        size: int,
        width: int = 64,
        max_multiplier: int = 16,
        norm: str = "batch",
        late_fusion: bool = False,
    ) -> None:
        super().__init__()
        channels = dcgan_channels(size, width, max_multiplier)
        last = channels[4]
        if late_fusion:
            rgb_channels = dcgan_channels(size, width // 2, max_multiplier)
            rgb_branch = downsampling(3, rgb_channels, norm)
            rgb_branch.append(nn.Conv2d(rgb_channels[4], EMBEDDING_SIZE, 1))
            rgb_branch.append(nn.LeakyReLU(0.2))
            self.features = nn.Sequential(
                LateFusion(downsampling(1, channels, norm), rgb_branch),
                nn.Conv2d(last + EMBEDDING_SIZE, last, 1, bias=False),
                normalization(norm, last),
                nn.LeakyReLU(0.2),
            )
        else:
            self.features = downsampling(4, channels, norm)
        self.head = nn.Conv2d(last, 1, 4, 1, 0)

    def forward(self, pair: Float[Tensor, "batch 4 height width"]) -> Float[Tensor, "batch"]:
        with parametrize.cached():
            self.cache_weights()
            features = self.features(pair)
            # The scores of a weight-clipped critic differ by about 1e-3, less than bf16 resolves.
            with torch.autocast(features.device.type, enabled=False):
                return self.head(features.float()).flatten()
