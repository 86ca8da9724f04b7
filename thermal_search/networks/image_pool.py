"""A buffer of previously generated images (Shrivastava et al. 2017, arXiv 1612.07828)."""

from typing import Any

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """Mixes earlier generated images into a discriminator's batches, which reduces oscillation.

    Until the pool is full, it stores and returns each image. After that, with probability 0.5, it
    returns a random stored image and stores the new one in its place.

    Random draws come from torch's default generator and the images are part of the state_dict, so a
    restored pool continues exactly. All choices are made on the device; the host never waits.
    """

    def __init__(self, capacity: int = 50) -> None:
        super().__init__()
        self.capacity = capacity
        self.images: Tensor | None = None
        """`capacity` images, of which the first `filled` are in use; None before the first swap."""

        self.filled = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def swap(self, images: Tensor) -> Tensor:
        """A batch of the same shape, each image new or from the pool, without gradients."""
        images = images.detach()
        if self.capacity == 0:
            return images
        pool = self._on_device_of(images)
        output: list[Tensor] = []
        for image in images.split(1):
            is_filling = self.filled < self.capacity
            coin = torch.rand((), device=image.device)
            index = torch.randint(self.capacity, (), device=image.device)
            index = torch.where(is_filling, self.filled, index)[None]
            is_swapped = ~is_filling & (coin < 0.5)
            stored = pool.index_select(0, index)
            output.append(torch.where(is_swapped, stored, image))
            pool.index_copy_(0, index, torch.where(is_filling | is_swapped, image, stored))
            self.filled += is_filling
        return torch.cat(output)

    def _on_device_of(self, images: Tensor) -> Tensor:
        """The stored images on the device of `images`; a restored pool starts on the CPU."""
        if self.images is None:
            self.images = images.new_zeros(self.capacity, *images.shape[1:])
        self.images = self.images.to(images)
        self.filled = self.filled.to(images.device)
        return self.images

    def get_extra_state(self) -> dict[str, Any]:
        filled = int(self.filled.item())
        return {"images": None if self.images is None else self.images[:filled].clone()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        images = state["images"]
        self.images = None
        self.filled = torch.zeros((), dtype=torch.int64)
        if images is not None:
            empty = images.new_zeros(self.capacity - len(images), *images.shape[1:])
            self.images = torch.cat([images, empty])
            self.filled += len(images)
