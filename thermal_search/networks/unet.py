"""The U-Net of pix2pix (Isola et al. 2017, appendix 6.1.1)."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thermal_search.images import Latent
from thermal_search.networks.initialization import normalization

DROPOUT_LAYERS = 3
"""Decoder layers with dropout, counted from the bottleneck."""


class UNet(nn.Module):
    """An encoder down to one pixel and a decoder back, with a skip connection at each resolution.

    Channels start at `width` and double up to eight times that. There is no normalization in the
    first encoder layer, at the bottleneck (one pixel has no statistics) and in the output layer.
    With `latent_size`, a latent vector is repeated over all pixels and concatenated to the input of
    every encoder layer (BicycleGAN, Zhu et al. 2017, arXiv 1711.11586).

    `test_norm_stats`: what batch normalization uses at test time, each image's own statistics (see
    `PerImageBatchNorm`) or the running averages of training.
    """

    def __init__(
        self,
        *,
        size: int,
        in_channels: int = 3,
        out_channels: int = 1,
        width: int = 64,
        norm: str = "batch",
        test_norm_stats: Literal["image", "running"] = "image",
        dropout: float = 0.5,
        test_dropout: bool = True,
        latent_size: int = 0,
    ) -> None:
        super().__init__()
        depth = int(math.log2(size))
        channels = [min(width * 2**level, 8 * width) for level in range(depth)]
        # The bias of batch normalization replaces that of the convolution before it.
        bias = norm != "batch"

        def normalized(channels: int) -> nn.Module:
            if norm == "batch" and test_norm_stats == "image":
                return PerImageBatchNorm(channels)
            return normalization(norm, channels)

        self.encoder = nn.ModuleList()
        for level in range(depth):
            input_channels = in_channels if level == 0 else channels[level - 1]
            is_normalized = 0 < level < depth - 1
            self.encoder.append(
                nn.Sequential(
                    nn.Identity() if level == 0 else nn.LeakyReLU(0.2),
                    nn.Conv2d(input_channels + latent_size, channels[level], 4, 2, 1, bias=bias),
                    normalized(channels[level]) if is_normalized else nn.Identity(),
                )
            )
        self.decoder = nn.ModuleList()
        dropout_layers = min(DROPOUT_LAYERS, depth - 2)
        for step, level in enumerate(reversed(range(1, depth))):
            # All but the bottleneck's features are concatenated with those of the skip connection.
            input_channels = channels[level] if step == 0 else 2 * channels[level]
            has_dropout = step < dropout_layers and dropout > 0
            self.decoder.append(
                nn.Sequential(
                    nn.ReLU(),
                    nn.ConvTranspose2d(input_channels, channels[level - 1], 4, 2, 1, bias=bias),
                    normalized(channels[level - 1]),
                    Dropout(dropout, at_test=test_dropout) if has_dropout else nn.Identity(),
                )
            )
        self.output = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(2 * channels[0], out_channels, 4, 2, 1), nn.Tanh()
        )

    def forward(
        self,
        images: Float[Tensor, "batch in_channels height width"],
        z: Latent | None = None,
    ) -> Float[Tensor, "batch out_channels height width"]:
        skips: list[Tensor] = []
        features = images
        for layer in self.encoder:
            if z is not None:
                repeated = z[:, :, None, None].expand(-1, -1, *features.shape[2:])
                features = torch.cat([features, repeated.to(features.dtype)], dim=1)
            features = layer(features)
            skips.append(features)
        features = skips.pop()
        for layer in self.decoder:
            features = torch.cat([layer(features), skips.pop()], dim=1)
        return self.output(features).float()


class PerImageBatchNorm(nn.BatchNorm2d):
    """Batch normalization that uses each image's own statistics at test time.

    pix2pix trains on one image at a time and tests the same way (section 3.3). The output for an
    image does not depend on the batch that it is in, and there are no running averages.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            return super().forward(input)
        return F.instance_norm(input, weight=self.weight, bias=self.bias, eps=self.eps)


class Dropout(nn.Module):
    """Dropout that can stay active at test time, where it is pix2pix's only noise."""

    one_mask = False
    """Whether all images of a batch get the same mask: then an image's result does not depend on
    its place in the batch."""

    def __init__(self, probability: float, *, at_test: bool) -> None:
        super().__init__()
        self.probability, self.at_test = probability, at_test

    def forward(self, features: Tensor) -> Tensor:
        is_active = self.training or self.at_test
        if is_active and self.one_mask:
            return features * F.dropout(torch.ones_like(features[:1]), self.probability)
        return F.dropout(features, self.probability, training=is_active)
