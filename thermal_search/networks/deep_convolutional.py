"""The convolutional pair of DCGAN (Radford et al. 2015, arXiv 1511.06434)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Latent, Rgb, Thermal
from thermal_search.networks.condition import ConditionPyramid
from thermal_search.networks.fusion import LateFusion
from thermal_search.networks.initialization import normalization

CODE_SIZE = 128
"""Channels of the coded RGB image where it joins late, as in Reed et al. 2016."""


def channels_by_resolution(size: int, width: int, cap: int) -> dict[int, int]:
    """Channels by resolution: `width` at size / 2, doubling inwards to at most `cap` times that."""
    resolutions = [4 * 2**step for step in range(size.bit_length()) if 4 * 2**step < size]
    return {r: min(width * (size // 2) // r, cap * width) for r in resolutions}


def downsampling(in_channels: int, channels: dict[int, int]) -> nn.Sequential:
    """Strided convolutions through the resolutions of `channels`, largest first, to 4 x 4."""
    layers = nn.Sequential()
    before = in_channels
    for resolution, wide in reversed(channels.items()):
        is_first = resolution == max(channels)
        layers.append(nn.Conv2d(before, wide, 4, 2, 1, bias=is_first))
        layers.append(nn.Identity() if is_first else nn.BatchNorm2d(wide))
        layers.append(nn.LeakyReLU(0.2))
        before = wide
    return layers


class DcganGenerator(nn.Module):
    """A latent vector becomes 4 x 4 features, doubled by transposed convolutions to the image.

    With `condition_channels` None it is the paper's own network, blind to the RGB image.
    """

    def __init__(
        self,
        *,
        size: int,
        latent_size: int = 100,
        width: int = 64,
        cap: int = 16,
        condition_channels: int | None = 32,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        channels = channels_by_resolution(size, width, cap)
        bias = norm == "none"
        self.condition = ConditionPyramid(list(channels), condition_channels)
        extra = self.condition.channels
        self.root = nn.Sequential(
            nn.ConvTranspose2d(latent_size, channels[4], 4, 1, 0, bias=bias),
            normalization(norm, channels[4]),
            nn.ReLU(),
        )
        self.levels = nn.ModuleList()
        for resolution, wide in channels.items():
            if 2 * resolution < size:
                double = channels[2 * resolution]
                self.levels.append(
                    nn.Sequential(
                        nn.ConvTranspose2d(wide + extra, double, 4, 2, 1, bias=bias),
                        normalization(norm, double),
                        nn.ReLU(),
                    )
                )
            else:
                self.levels.append(
                    nn.Sequential(nn.ConvTranspose2d(wide + extra, 1, 4, 2, 1), nn.Tanh())
                )

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        features = self.root(z[:, :, None, None])
        for level in self.levels:
            features = level(self.condition.concatenate(features, rgb))
        return features.float()


class DcganDiscriminator(nn.Module):
    """Halves a pair to 4 x 4 by strided convolutions, then to one score, without a sigmoid.

    `late_fusion`: the thermal image alone is halved so, the RGB one by convolutions of half the
    width, and they join at 4 x 4.
    """

    def __init__(
        self,
        *,
        size: int,
        width: int = 64,
        cap: int = 16,
        late_fusion: bool = False,
    ) -> None:
        super().__init__()
        channels = channels_by_resolution(size, width, cap)
        wide = channels[4]
        if late_fusion:
            narrow = channels_by_resolution(size, width // 2, cap)
            see = downsampling(3, narrow)
            see.append(nn.Conv2d(narrow[4], CODE_SIZE, 1)).append(nn.LeakyReLU(0.2))
            self.features = nn.Sequential(
                LateFusion(downsampling(1, channels), see),
                nn.Conv2d(wide + CODE_SIZE, wide, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.LeakyReLU(0.2),
            )
        else:
            self.features = downsampling(4, channels)
        self.head = nn.Conv2d(wide, 1, 4, 1, 0)

    def forward(self, pair: Float[Tensor, "batch 4 height width"]) -> Float[Tensor, "batch"]:
        features = self.features(pair)
        # A clipped critic's scores are about 1e-3 apart: bf16 would round them together.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.float()).flatten()
