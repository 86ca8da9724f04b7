"""A history of painted images (Shrivastava et al. 2017, arXiv 1612.07828)."""

from typing import Any

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Shows a discriminator old fakes among the new, so that it does not forget.

    Until it is full it keeps and returns what it is given. Then, one time in two, it returns a
    random old image and keeps the new one in its place. Random draws come from torch's own
    generator and the images travel with the state, so a restored pool goes on exactly. Nothing is
    decided on the host, which would have to wait for the device.
    """

    def __init__(self, capacity: int = 50) -> None:
        super().__init__()
        self.capacity = capacity
        self.images: Tensor | None = None
        """`capacity` of them, the first `filled` in use; none before the first swap."""

        self.filled = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def swap(self, images: Tensor) -> Tensor:
        """As many images as given, each new or old, without gradients."""
        images = images.detach()
        if self.capacity == 0:
            return images
        pool = self._on(images)
        shown: list[Tensor] = []
        for image in images.split(1):
            is_filling = self.filled < self.capacity
            coin = torch.rand((), device=image.device)
            place = torch.randint(self.capacity, (), device=image.device)
            place = torch.where(is_filling, self.filled, place)[None]
            is_swapped = ~is_filling & (coin < 0.5)
            old = pool.index_select(0, place)
            shown.append(torch.where(is_swapped, old, image))
            pool.index_copy_(0, place, torch.where(is_filling | is_swapped, image, old))
            self.filled += is_filling
        return torch.cat(shown)

    def _on(self, images: Tensor) -> Tensor:
        """The pool beside `images`: a restored one begins on the CPU, wherever training goes on."""
        if self.images is None:
            self.images = images.new_zeros(self.capacity, *images.shape[1:])
        self.images = self.images.to(images)
        self.filled = self.filled.to(images.device)
        return self.images

    def get_extra_state(self) -> dict[str, Any]:
        filled = int(self.filled.item())
        return {"images": None if self.images is None else self.images[:filled].clone()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        kept = state["images"]
        self.images = None
        self.filled = torch.zeros((), dtype=torch.int64)
        if kept is not None:
            rest = kept.new_zeros(self.capacity - len(kept), *kept.shape[1:])
            self.images = torch.cat([kept, rest])
            self.filled += len(kept)
