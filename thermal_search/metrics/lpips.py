"""LPIPS (Zhang et al. 2018, arXiv 1801.03924), version 0.1, on AlexNet or VGG-16."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from thermal_search.errors import MetricError, WeightsUnavailable
from thermal_search.metrics.extractor import without_tf32

MIN_SIZE = 32
"""Pixels a side, for the pooling layers to leave at least one."""

# The indices of torchvision's layers whose outputs are compared, as in the paper.
ALEXNET_LAYERS, VGG_LAYERS = (1, 4, 7, 9, 11), (3, 8, 15, 22, 29)
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class PerceptualDistance:
    """LPIPS on torchvision's ImageNet weights of AlexNet or VGG-16, whichever the file holds.

    The learned weights of the layers are torchmetrics' copy of the paper's. Raises
    WeightsUnavailable if the file cannot be loaded.
    """

    def __init__(self, weights: Path, device: torch.device | None = None) -> None:
        # Here: torchvision takes two seconds to import.
        from torchvision.models import alexnet, vgg16

        self.device = device or torch.device("cpu")
        state = _read(weights)
        is_alexnet = state["features.0.weight"].shape[-1] == 11
        self.backbone = "alexnet" if is_alexnet else "vgg16"
        layers = (alexnet if is_alexnet else vgg16)(weights=None).features
        assert isinstance(layers, nn.Sequential)
        prefix = "features."
        own = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
        try:
            layers.load_state_dict(own)
        except RuntimeError as error:
            raise _weights_error(weights, " ".join(str(error).split())[:200]) from None
        self.compared_layers = ALEXNET_LAYERS if is_alexnet else VGG_LAYERS
        layer_count = self.compared_layers[-1] + 1
        self.layers = layers[:layer_count].eval().requires_grad_(False).to(self.device)
        linear_file = _linear_weights_file("alex" if is_alexnet else "vgg")
        linear = torch.load(linear_file, map_location="cpu", weights_only=True)
        self.weights = [linear[f"lin{n}.model.1.weight"].to(self.device) for n in range(5)]
        self.shift = torch.tensor(SHIFT, device=self.device).view(1, 3, 1, 1)
        self.scale = torch.tensor(SCALE, device=self.device).view(1, 3, 1, 1)
        self.digest = hashlib.sha256(weights.read_bytes()).hexdigest()[:10]

    def require_size(self, size: int) -> None:
        """Raises MetricError if images of this size are too small for the backbone."""
        if size < MIN_SIZE:
            raise MetricError(
                f"LPIPS needs images of at least {MIN_SIZE} pixels a side, but these have {size}: "
                "leave --lpips-weights out, or prepare larger ones."
            )

    @torch.inference_mode()
    def __call__(
        self,
        generated: UInt8[Tensor, "batch channels height width"],
        real: UInt8[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch"]:
        """0 for equal images, lower is better. One channel is repeated to three.

        Raises MetricError for images of fewer than 32 pixels a side.
        """
        self.require_size(min(generated.shape[2:]))
        count = len(generated)
        values = torch.cat([generated, real]).to(self.device).float() / 127.5 - 1
        values = (values.expand(-1, 3, -1, -1) - self.shift) / self.scale
        distance = torch.zeros(count, device=self.device)
        weights = iter(self.weights)
        with torch.autocast(self.device.type, enabled=False), without_tf32():
            for index, layer in enumerate(self.layers):
                values = layer(values)
                if index in self.compared_layers:
                    unit = values / (values.square().sum(1, keepdim=True) + 1e-8).sqrt()
                    difference = (unit[:count] - unit[count:]).square()
                    distance += (difference * next(weights)).sum(1).mean((1, 2))
        return distance


def _read(file: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        assert isinstance(state["features.0.weight"], Tensor)
    except Exception as error:  # any, from the disk or the file
        raise _weights_error(file, " ".join(str(error).split())[:200]) from None
    return state


def _weights_error(file: Path, reason: str) -> WeightsUnavailable:
    return WeightsUnavailable(
        "--lpips-weights must be torchvision's ImageNet weights of AlexNet or VGG-16, but "
        f"{file} cannot be loaded as that ({reason}): save them with "
        "torch.save(torchvision.models.alexnet(weights='DEFAULT').state_dict(), FILE)."
    )


def _linear_weights_file(backbone: str) -> Path:
    # Located without an import: torchmetrics takes six seconds to import, and this is only a file.
    spec = find_spec("torchmetrics")
    if spec is None or spec.submodule_search_locations is None:
        raise WeightsUnavailable(
            "LPIPS needs the weights that torchmetrics ships, which is not installed: "
            "pip install 'thermal-search[lpips]', or leave --lpips-weights out."
        )
    root = Path(spec.submodule_search_locations[0])
    return root / "functional" / "image" / "lpips_models" / f"{backbone}.pth"
