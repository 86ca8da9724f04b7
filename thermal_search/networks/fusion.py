"""The first layers of a discriminator with late fusion of the RGB and the thermal image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LateFusion(nn.Module):
    """Each image of an (rgb, thermal) pair through its own branch; the features concatenated.

    No layer at pixel resolution can compare the two images.
    """

    def __init__(self, thermal_branch: nn.Module, rgb_branch: nn.Module) -> None:
        super().__init__()
        self.thermal_branch, self.rgb_branch = thermal_branch, rgb_branch

    def forward(
        self, pair: Float[Tensor, "batch 4 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        rgb, thermal = pair[:, :3], pair[:, 3:]
        return torch.cat([self.thermal_branch(thermal), self.rgb_branch(rgb)], dim=1)
