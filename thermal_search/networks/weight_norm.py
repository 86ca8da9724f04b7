"""Weight normalization with data-dependent initialization.

Salimans & Kingma 2016 (arXiv 1602.07868), as in the code of Improved GAN (arXiv 1606.03498).
"""

import contextlib
from collections.abc import Generator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class WeightNorm(nn.Module):
    """A parametrization: the weights of each output channel have the norm `gain`."""

    def __init__(self, channels: int, dim: int, *, init_std: float, learns_gain: bool) -> None:
        super().__init__()
        self.dim, self.init_std = dim, init_std
        self.gain: Tensor
        if learns_gain:
            self.gain = nn.Parameter(torch.ones(channels))
        else:
            self.register_buffer("gain", torch.ones(channels))

    def forward(self, weight: Tensor) -> Tensor:
        others = [dim for dim in range(weight.dim()) if dim != self.dim]
        norm = torch.linalg.vector_norm(weight, dim=others, keepdim=True)
        return weight * (self.gain.view(norm.shape) / norm)


def weight_norm(layer: Layer, *, init_std: float = 1.0, learns_gain: bool = False) -> Layer:
    """Normalizes the weights of `layer` from now on; it must have a bias.

    `init_std` is the standard deviation of its outputs that `init_weight_norm` sets.
    `learns_gain`: the gain is trained; otherwise only data sets it.
    """
    dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    norm = WeightNorm(layer.weight.shape[dim], dim, init_std=init_std, learns_gain=learns_gain)
    parametrize.register_parametrization(layer, "weight", norm)
    return layer


@contextlib.contextmanager
def init_weight_norm(network: nn.Module) -> Generator[None]:
    """A context whose forward pass sets the gains and biases of all weight-normalized layers.

    On that pass's inputs, each channel of a layer's output then has the mean 0 and the standard
    deviation `init_std`, whatever the size of the images and the depth of the network.
    """
    handles = [
        layer.register_forward_hook(_standardize)
        for layer in network.modules()
        if parametrize.is_parametrized(layer, "weight")
        and isinstance(layer.get_submodule("parametrizations.weight.0"), WeightNorm)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _standardize(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
    norm = layer.get_submodule("parametrizations.weight.0")
    bias = layer.get_parameter("bias")
    assert isinstance(norm, WeightNorm)
    others = [dim for dim in range(output.dim()) if dim != 1]
    std, mean = torch.std_mean(output, others, correction=0, keepdim=True)
    # A channel that does not depend on the image keeps its scale.
    scale = torch.where(std > 1e-6, norm.init_std / std, 1.0)
    norm.gain.mul_(scale.flatten())
    bias.sub_(mean.flatten()).mul_(scale.flatten())
    return (output - mean) * scale
