"""The U-Net of pix2pix (Isola et al. 2017, appendix 6.1.1)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.images import Latent
from thermal_search.networks.initialization import normalization

DROPOUT_LAYERS = 3
"""Decoder layers, from the bottleneck up, that drop out."""


class UNet(nn.Module):
    """Halves the image down to one pixel and doubles it back, each level seeing its mirror.

    Channels are `width`, doubling to at most eight times that. No normalization at the first
    encoder layer, at the bottleneck (one pixel has no statistics) and at the output. With
    `latent_size` every encoder layer is also given a latent vector, the same at each place (as in
    BicycleGAN, Zhu et al. 2017, arXiv 1711.11586).
    """

    def __init__(
        self,
        *,
        size: int,
        in_channels: int = 3,
        out_channels: int = 1,
        width: int = 64,
        norm: str = "batch",
        dropout: float = 0.5,
        test_dropout: bool = True,
        latent_size: int = 0,
    ) -> None:
        super().__init__()
        depth = int(math.log2(size))
        channels = [min(width * 2**level, 8 * width) for level in range(depth)]
        # Batch normalization has its own bias.
        bias = norm != "batch"
        self.encoder = nn.ModuleList()
        for level, wide in enumerate(channels):
            before = in_channels if level == 0 else channels[level - 1]
            is_normed = 0 < level < depth - 1
            self.encoder.append(
                nn.Sequential(
                    nn.Identity() if level == 0 else nn.LeakyReLU(0.2),
                    nn.Conv2d(before + latent_size, wide, 4, 2, 1, bias=bias),
                    normalization(norm, wide) if is_normed else nn.Identity(),
                )
            )
        self.decoder = nn.ModuleList()
        dropping = min(DROPOUT_LAYERS, depth - 2)
        for step, level in enumerate(reversed(range(1, depth))):
            below = channels[level] if step == 0 else 2 * channels[level]
            wide = channels[level - 1]
            drops = step < dropping and dropout > 0
            self.decoder.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(below, wide, 4, 2, 1, bias=bias),
                    normalization(norm, wide),
                    Dropout(dropout, at_test=test_dropout) if drops else nn.Identity(),
                )
            )
        self.output = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(2 * channels[0], out_channels, 4, 2, 1), nn.Tanh()
        )

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        z: Latent | None = None,
    ) -> Float[Tensor, "batch painted height width"]:
        seen: list[Tensor] = []
        features = images
        for layer in self.encoder:
            if z is not None:
                everywhere = z[:, :, None, None].expand(-1, -1, *features.shape[2:])
                features = torch.cat([features, everywhere.to(features.dtype)], dim=1)
            features = layer(features)
            seen.append(features)
        features = seen.pop()
        for layer in self.decoder:
            features = torch.cat([layer(features), seen.pop()], dim=1)
        return self.output(features).float()


class Dropout(nn.Module):
    """Dropout that may stay on when the network is judged: the noise of pix2pix."""

    def __init__(self, probability: float, *, at_test: bool) -> None:
        super().__init__()
        self.probability, self.at_test = probability, at_test

    def forward(self, features: Tensor) -> Tensor:
        active = self.training or self.at_test
        return nn.functional.dropout(features, self.probability, training=active)
