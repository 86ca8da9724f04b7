"""A history of painted images (Shrivastava et al. 2017, arXiv 1612.07828)."""

from typing import Any

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Shows a discriminator old fakes among the new, so that it does not forget.

    Until it is full it keeps and returns what it is given. Then, one time in two, it returns a
    random old image and keeps the new one in its place. Random draws come from torch's own
    generator and the images travel with the state, so a restored pool goes on exactly.
    """

    def __init__(self, capacity: int = 50) -> None:
        super().__init__()
        self.capacity = capacity
        self.images: list[Tensor] = []

    @torch.no_grad()
    def swap(self, images: Tensor) -> Tensor:
        """As many images as given, each new or old, without gradients."""
        if self.capacity == 0:
            return images.detach()
        shown: list[Tensor] = []
        for image in images.detach():
            if len(self.images) < self.capacity:
                self.images.append(image.clone())
                shown.append(image)
            elif torch.rand(()).item() < 0.5:
                place = int(torch.randint(self.capacity, ()).item())
                # A restored pool begins on the CPU, wherever training goes on.
                shown.append(self.images[place].to(image.device))
                self.images[place] = image.clone()
            else:
                shown.append(image)
        return torch.stack(shown)

    def get_extra_state(self) -> dict[str, Any]:
        return {"images": torch.stack(self.images) if self.images else None}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        images = state["images"]
        self.images = [] if images is None else list(images.clone().unbind())
