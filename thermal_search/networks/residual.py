"""The residual generator of CycleGAN (Zhu et al. 2017, appendix 7.2; Johnson et al. 2016)."""

from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.networks.padding import ReflectionPad


def published_blocks(size: int) -> int:
    """The paper's residual blocks for size x size pixels: 9 from 256 pixels, 6 below."""
    return 9 if size >= 256 else 6


class ResidualTranslator(nn.Module):
    """Maps images of three channels to images of `out_channels` and the same size.

    Two strided convolutions, residual blocks at a quarter of the size, two transposed convolutions.
    """

    DOWNSAMPLING = 4
    """Both sides of an image must be a multiple of this."""

    def __init__(self, *, out_channels: int, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ReflectionPad(3),
            nn.Conv2d(3, width, 7),
            nn.InstanceNorm2d(width),
            nn.ReLU(),
            *_normalized(nn.Conv2d(width, 2 * width, 3, 2, 1), 2 * width),
            *_normalized(nn.Conv2d(2 * width, 4 * width, 3, 2, 1), 4 * width),
            *(ResidualBlock(4 * width) for _ in range(blocks)),
            *_normalized(nn.ConvTranspose2d(4 * width, 2 * width, 3, 2, 1, 1), 2 * width),
            *_normalized(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, 1), width),
            ReflectionPad(3),
            nn.Conv2d(width, out_channels, 7),
            nn.Tanh(),
        )

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        return self.layers(images).float()


class ResidualBlock(nn.Module):
    """Adds the output of two 3 x 3 convolutions with reflection padding to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            ReflectionPad(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return features + self.layers(features)


def _normalized(convolution: nn.Module, channels: int) -> tuple[nn.Module, ...]:
    return convolution, nn.InstanceNorm2d(channels), nn.ReLU()
