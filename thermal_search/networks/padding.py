"""Padding by reflection, as in the translators of CycleGAN and UNIT."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Reflect(nn.Module):
    """Adds `width` rows and columns on every side, mirrored at the border.

    What `nn.ReflectionPad2d` does. On a CPU torch does it in float32 under autocast, though nothing
    is rounded, and takes its derivative place by place.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type == "cpu":
            return _Reflection.apply(features, self.width)  # pyright: ignore[reportReturnType]
        return F.pad(features, [self.width] * 4, mode="reflect")


class _Reflection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, width: int) -> Tensor:
        ctx.width = width
        with torch.autocast(features.device.type, enabled=False):
            return F.pad(features, [width] * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rows_folded = _fold(gradients[0], ctx.width, -2)
        return _fold(rows_folded, ctx.width, -1), None


def _fold(padded: Tensor, width: int, axis: int) -> Tensor:
    """Adds what lies beyond the border to what it mirrors."""
    inside = padded.shape[axis] - 2 * width
    folded = padded.narrow(axis, width, inside).clone(memory_format=torch.contiguous_format)
    before, after = padded.narrow(axis, 0, width), padded.narrow(axis, width + inside, width)
    if width > 1:
        before, after = before.flip(axis), after.flip(axis)
    folded.narrow(axis, 1, width).add_(before)
    folded.narrow(axis, inside - 1 - width, width).add_(after)
    return folded
