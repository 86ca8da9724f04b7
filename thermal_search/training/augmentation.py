"""Random augmentation of training batches, on their device.

It is a part of the training step, so that a CUDA graph contains it, and draws from torch's default
generator, so that a resumed trial continues exactly. Mirroring happens earlier, in `data.batches`.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from thermal_search.architectures.translator import Translator
from thermal_search.images import Batch, Rgb


@dataclass(frozen=True)
class Augmentation:
    """Crops the images of a batch and jitters the colors of its RGB images."""

    crop_scale: float
    color_jitter: float
    """Both as in `translator.Config`."""

    is_paired: bool
    """Whether the RGB and the thermal image are cropped alike."""

    @classmethod
    def of(cls, translator: Translator) -> "Augmentation":
        config = translator.config
        return cls(config.crop_scale, config.color_jitter, translator.needs_pairs)

    def __call__(self, batch: Batch) -> Batch:
        rgb, thermal = batch.rgb, batch.thermal
        if self.crop_scale != 1:
            position = _random_position(rgb)
            rgb = crop(rgb, self.crop_scale, position)
            position = position if self.is_paired else _random_position(thermal)
            thermal = crop(thermal, self.crop_scale, position)
        if self.color_jitter:
            rgb = jitter_colors(rgb, self.color_jitter)
        return Batch(rgb, thermal)


def crop(
    images: Float[Tensor, "batch channels size size"],
    scale: float,
    position: Float[Tensor, "batch 2"],
) -> Float[Tensor, "batch channels size size"]:
    """Enlarges the images by `scale` >= 1, bicubic, and crops them to their size.

    `position`: the row and the column of the crop, from -1 (first) to 1 (last).
    """
    rows, columns = (
        _resampling(images.shape[-1], scale, along_axis) for along_axis in position.unbind(1)
    )
    with torch.autocast(images.device.type, enabled=False):
        cropped = rows @ images @ columns.mT
    return cropped.clamp(-1, 1)  # cubic interpolation overshoots at edges


def _resampling(
    size: int, scale: float, position: Float[Tensor, "batch"]
) -> Float[Tensor, "batch 1 size size"]:
    """The weight of each pixel of an image's row or column in each pixel of its crop.

    Bicubic interpolation is separable, so that two matrices crop an image.
    """
    pixels = torch.arange(size, device=position.device)
    start = (position[:, None] + 1) / 2 * (size - size / scale)
    centers = start + (pixels + 0.5) / scale - 0.5
    weights = _cubic((centers[:, :, None] - pixels).abs())
    # Beyond the border there are no pixels: the others take their weight.
    return (weights / weights.sum(-1, keepdim=True))[:, None]


def _cubic(distance: Tensor) -> Tensor:
    """The kernel of Keys 1981 with a = -0.5, as in Pillow: it preserves linear ramps."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance < 1, near, torch.where(distance < 2, far, 0))


def jitter_colors(rgb: Rgb, strength: float) -> Rgb:
    """Multiplies brightness, contrast and saturation of each image by factors from 1 - `strength`
    to 1 + `strength`."""
    draws = torch.rand(3, len(rgb), 1, 1, 1, device=rgb.device)
    brightness, contrast, saturation = (1 + strength * (2 * draws - 1)).unbind()
    colors = ((rgb + 1) / 2 * brightness).clamp(0, 1)
    mean = _gray(colors).mean((2, 3), keepdim=True)
    colors = torch.lerp(mean, colors, contrast).clamp(0, 1)
    colors = torch.lerp(_gray(colors), colors, saturation).clamp(0, 1)
    return colors * 2 - 1


def _random_position(images: Tensor) -> Float[Tensor, "batch 2"]:
    return torch.rand(len(images), 2, device=images.device) * 2 - 1


def _gray(colors: Rgb) -> Float[Tensor, "batch 1 height width"]:
    """The luminance of BT.601."""
    red, green, blue = colors.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
