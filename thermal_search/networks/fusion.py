"""A discriminator's first layers where the RGB image joins the thermal one late."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LateFusion(nn.Module):
    """Each image of a pair through layers of its own; the features they end with, side by side.

    No layer that sees single pixels can compare the two.
    """

    def __init__(self, look: nn.Module, see: nn.Module) -> None:
        super().__init__()
        self.look, self.see = look, see

    def forward(
        self, pair: Float[Tensor, "batch 4 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        rgb, thermal = pair[:, :3], pair[:, 3:]
        return torch.cat([self.look(thermal), self.see(rgb)], dim=1)
