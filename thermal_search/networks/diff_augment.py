"""Differentiable augmentation of what a discriminator scores (DiffAugment, Zhao et al. 2020).

https://arxiv.org/abs/2006.10738. Real and generated images are augmented alike, so that a
discriminator cannot memorize a few real ones, and the generator is trained through it.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TRANSLATION = 0.125
"""Largest translation, as a fraction of the size."""

CUTOUT = 0.5
"""Side of the square that is cut out, as a fraction of the size."""

Images = Float[Tensor, "batch channels size size"]


def diff_augment(images: Images, channels: int) -> Images:
    """Translates `images` at random, and changes the colors of the last `channels` channels and
    cuts a square out of them.

    The other channels are the condition: colors and cutouts there would hide what the generator
    knows.
    """
    condition, image = images.split([images.shape[1] - channels, channels], dim=1)
    return _translate(torch.cat([condition, _cut_out(_change_colors(image))], dim=1))


def _change_colors(image: Images) -> Images:
    """Random brightness, saturation and contrast; saturation changes nothing in one channel."""
    brightness, saturation, contrast = torch.rand(
        3, len(image), 1, 1, 1, device=image.device
    ).unbind()
    image = image + (brightness - 0.5)
    image = torch.lerp(image.mean(1, keepdim=True), image, 2 * saturation)
    return torch.lerp(image.mean((1, 2, 3), keepdim=True), image, 0.5 + contrast)


def _cut_out(image: Images) -> Images:
    size = image.shape[-1]
    centers = size * torch.rand(2, len(image), 1, device=image.device)
    pixels = torch.arange(size, device=image.device) + 0.5
    return image.masked_fill(_outer((pixels - centers).abs() < size * CUTOUT / 2), 0)


def _translate(images: Images) -> Images:
    """The pixels that move in are 0."""
    size = images.shape[-1]
    limit = round(size * TRANSLATION)
    shifts = torch.randint(-limit, limit + 1, (2, len(images), 1), device=images.device)
    sources = torch.arange(size, device=images.device) + shifts
    rows, columns = sources.clamp(0, size - 1).unbind()
    images = images.take_along_dim(rows[:, None, :, None], dim=2)
    images = images.take_along_dim(columns[:, None, None, :], dim=3)
    return images * _outer((sources >= 0) & (sources < size))


def _outer(along_axes: Bool[Tensor, "2 batch size"]) -> Bool[Tensor, "batch 1 size size"]:
    rows, columns = along_axes.unbind()
    return rows[:, None, :, None] & columns[:, None, None, :]
