"""BicycleGAN's residual encoder (Zhu et al. 2017, arXiv 1711.11586)."""

import itertools
import math

from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Thermal


class LatentEncoder(nn.Module):
    """Maps a thermal image to the mean and the log variance of its latent code."""

    def __init__(self, *, size: int, latent_size: int = 8, width: int = 64) -> None:
        super().__init__()
        blocks = min(4, int(math.log2(size)) - 4)
        channels = [width * min(4, level) for level in range(1, blocks + 2)]
        self.layers = nn.Sequential(
            nn.Conv2d(1, width, 4, 2, 1),
            *(DownBlock(*pair) for pair in itertools.pairwise(channels)),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.mean = nn.Linear(channels[-1], latent_size)
        self.log_variance = nn.Linear(channels[-1], latent_size)

    def forward(
        self, thermal: Thermal
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch latent"]]:
        features = self.layers(thermal)
        return self.mean(features).float(), self.log_variance(features).float()


class DownBlock(nn.Module):
    """A residual block that halves the size by average pooling."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.InstanceNorm2d(in_channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(in_channels, in_channels, 3, 1, 1),
            nn.InstanceNorm2d(in_channels),
            nn.LeakyReLU(0.2),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1),
            nn.AvgPool2d(2),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(in_channels, out_channels, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features) + self.shortcut(features)
