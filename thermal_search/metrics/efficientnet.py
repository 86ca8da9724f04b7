"""EfficientNet-Lite0: a small network whose ImageNet weights need no download."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermal_search.metrics.extractor import (
    Extractor,
    FeaturesPrecision,
    digest_of,
    fold_batch_norm,
)
from thermal_search.networks.efficientnet import pretrained_efficientnet

SIZE = 224


class _EfficientNetFeatures(nn.Module):
    """EfficientNet-Lite0 up to its global pooling: 1280 features."""

    def __init__(self) -> None:
        super().__init__()
        self.network = pretrained_efficientnet()

    def forward(self, images: Tensor) -> Tensor:
        return self.network.extract_features(images).mean((2, 3))


def build_efficientnet(_: Path | None, precision: FeaturesPrecision) -> Extractor:
    """With ImageNet weights that come as a package."""
    network = _EfficientNetFeatures()
    classifier = network.network.get_submodule("_fc")
    assert isinstance(classifier, nn.Linear)
    digest = digest_of(network)
    _fold_all(network.network)
    return Extractor(
        "efficientnet-lite0",
        1280,
        network,
        _preprocess,
        classifier,
        resize=f"antialiased to {SIZE} px",
        digest=digest,
        precision=precision,
        memory_format=torch.channels_last,
    )


def _fold_all(network: nn.Module) -> None:
    fold_batch_norm(network, "_conv_stem", "_bn0")
    fold_batch_norm(network, "_conv_head", "_bn1")
    blocks = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for module in network.modules():
        for convolution, normalization in blocks:
            if hasattr(module, convolution):
                fold_batch_norm(module, convolution, normalization)


def _preprocess(pixels: Tensor) -> Tensor:
    """224 x 224, (x - 127) / 128, as EfficientNet-Lite was trained."""
    size = (SIZE, SIZE)
    resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return (resized - 127) / 128
