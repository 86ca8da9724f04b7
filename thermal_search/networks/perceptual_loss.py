"""A perceptual loss: how far two images are apart in the features of a network trained on ImageNet.

Johnson et al. 2016 (arXiv 1603.08155). The features are compared as LPIPS does (Zhang et al. 2018,
arXiv 1801.03924), without its learned weights.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from thermal_search.errors import WeightsUnavailable
from thermal_search.images import Thermal
from thermal_search.networks.efficientnet import pretrained_efficientnet

PerceptualNetwork = Literal["none", "efficientnet-lite0", "vgg16"]

MIN_SIZE = 32
"""Pixels a side, for the networks' strided layers; smaller images are enlarged."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB images in 0 .. 1, as torchvision's VGG-16 was trained."""


def perceptual_loss(network: PerceptualNetwork, fake: Thermal, real: Thermal) -> Tensor:
    """The mean squared distance between the features of both images, over positions and stages.

    Each position's features are scaled to unit length: 0 for equal images, at most 4. In float32,
    and differentiable by `fake`. Raises WeightsUnavailable if the network's weights are not here.
    """
    # Not a part of the translator: it is never trained or saved, and all trials share it.
    stages = _load(network, fake.device)
    with torch.autocast(fake.device.type, enabled=False):
        with torch.no_grad():
            real_features = stages(real.float())
        distances = [
            (one - other).square().sum(1).mean()
            for one, other in zip(stages(fake.float()), real_features, strict=True)
        ]
    return torch.stack(distances).mean()


class FeatureStages(nn.Module):
    """A frozen network's features of thermal images after each of some stages."""

    def __init__(
        self, stages: list[nn.Module], shift: tuple[float, ...], scale: tuple[float, ...]
    ) -> None:
        """
        Args:
            shift, scale: of the three input channels, for images in -1 .. 1.
        """
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.shift: Tensor
        self.scale: Tensor
        # Buffers: constants created in each forward pass would wait for a copy to the device.
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1))

    def forward(self, thermal: Thermal) -> list[Float[Tensor, "batch _ _ _"]]:
        """Of unit length at each position."""
        if thermal.shape[-1] < MIN_SIZE:
            thermal = F.interpolate(thermal, scale_factor=MIN_SIZE // thermal.shape[-1])
        features = (thermal.expand(-1, 3, -1, -1) - self.shift) / self.scale
        outputs: list[Tensor] = []
        for stage in self.stages:
            features = stage(features)
            outputs.append(F.normalize(features, dim=1, eps=1e-6))
        return outputs


@cache
def _load(name: PerceptualNetwork, device: torch.device) -> FeatureStages:
    # The random weights before the pretrained ones must not change the training's random numbers.
    with torch.random.fork_rng(devices=[]):
        stages = _BUILDERS[name]()
    stages = stages.eval().requires_grad_(False)
    return stages.to(device).to(memory_format=torch.channels_last)


def _efficientnet() -> FeatureStages:
    """EfficientNet-Lite0 at a half, a quarter, an eighth and a sixteenth of the size."""
    network = pretrained_efficientnet()

    def blocks(start: int, end: int) -> list[nn.Module]:
        return [network.get_submodule(f"_blocks.{number}") for number in range(start, end)]

    stem = [network.get_submodule("_conv_stem"), network.get_submodule("_bn0"), nn.ReLU6()]
    stages: list[nn.Module] = [
        nn.Sequential(*stem, *blocks(0, 1)),
        nn.Sequential(*blocks(1, 3)),
        nn.Sequential(*blocks(3, 5)),
        nn.Sequential(*blocks(5, 11)),
    ]
    # It takes (bytes - 127) / 128.
    return FeatureStages(stages, shift=(-0.5 / 127.5,) * 3, scale=(128 / 127.5,) * 3)


def _vgg() -> FeatureStages:
    """VGG-16 before its first four poolings. Never downloaded: training must not wait for it."""
    # Here: torchvision takes two seconds to import.
    from torchvision.models import VGG16_Weights, vgg16

    url = VGG16_Weights.IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir(), "checkpoints", Path(url).name)
    with torch.device("meta"):  # its classifier has 120 million weights that nothing needs
        features = vgg16(weights=None).features
    assert isinstance(features, nn.Sequential)
    layers = features[:23]
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        layers.load_state_dict(
            {name: state[f"features.{name}"] for name in layers.state_dict()}, assign=True
        )
    except Exception as error:  # any, from the disk or the file
        reason = " ".join(str(error).split())[:200]
        raise WeightsUnavailable(
            f"perceptual_network vgg16 needs torchvision's weights in {file}, and they cannot be "
            f"loaded ({reason}): download {url} to there, or choose efficientnet-lite0."
        ) from None
    bounds = [(0, 4), (4, 9), (9, 16), (16, 23)]
    return FeatureStages(
        [layers[start:end] for start, end in bounds],
        shift=tuple(2 * mean - 1 for mean in IMAGENET_MEAN),
        scale=tuple(2 * std for std in IMAGENET_STD),
    )


_BUILDERS: dict[str, Callable[[], FeatureStages]] = {
    "efficientnet-lite0": _efficientnet,
    "vgg16": _vgg,
}
