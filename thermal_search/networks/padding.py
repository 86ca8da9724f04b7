"""Reflection padding, as in the generators of CycleGAN and UNIT."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ReflectionPad(nn.Module):
    """Pads every side by `width` rows or columns, mirrored at the border, as `nn.ReflectionPad2d`.

    On a CPU torch pads in float32 under autocast, though padding rounds nothing, and its backward
    pass is slow. There this class keeps the precision and has a backward pass of its own.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        if features.device.type == "cpu":
            return _ReflectionPad.apply(features, self.width)  # pyright: ignore[reportReturnType]
        return F.pad(features, [self.width] * 4, mode="reflect")


class _ReflectionPad(torch.autograd.Function):
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
    """Removes the padding along `axis` and adds it to the entries that it mirrors."""
    inside = padded.shape[axis] - 2 * width
    folded = padded.narrow(axis, width, inside).clone(memory_format=torch.contiguous_format)
    before, after = padded.narrow(axis, 0, width), padded.narrow(axis, width + inside, width)
    if width > 1:
        before, after = before.flip(axis), after.flip(axis)
    folded.narrow(axis, 1, width).add_(before)
    folded.narrow(axis, inside - 1 - width, width).add_(after)
    return folded
