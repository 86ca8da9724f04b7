"""The initialization of DCGAN (Radford et al. 2015, section 3), which most GANs use."""

from typing import TypeVar

from torch import nn

from thermal_search.networks.condition import RgbConv
from thermal_search.networks.virtual_batch_norm import VirtualBatchNorm

Network = TypeVar("Network", bound=nn.Module)


def initialize(network: Network, std: float = 0.02) -> Network:
    """Draws weights from N(0, std) and normalization gains from N(1, std); sets biases to 0.

    Covers convolutions, dense layers and batch normalization. `RgbConv` keeps its own weights.
    """
    for module in network.modules():
        if isinstance(module, RgbConv):
            continue
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.normal_(module.weight, 0.0, std)
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network


def normalization(kind: str, channels: int) -> nn.Module:
    """A normalization layer: `batch`, `virtual` or `layer` (affine), `instance` (not affine), or
    `none`. `layer` is over the channels and pixels of an image."""
    match kind:
        case "batch":
            return nn.BatchNorm2d(channels)
        case "virtual":
            return VirtualBatchNorm(channels)
        case "layer":
            return nn.GroupNorm(1, channels)
        case "instance":
            return nn.InstanceNorm2d(channels)
        case "none":
            return nn.Identity()
        case _:
            available = "batch, virtual, layer, instance, none"
            raise ValueError(f"Unknown norm {kind!r}. Available: {available}.")
