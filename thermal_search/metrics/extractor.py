"""The frozen network whose features a distance is measured on."""

import contextlib
import hashlib
from collections.abc import Callable, Generator

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from thermal_search.choices import FeaturesPrecision
from thermal_search.metrics.protocol import Protocol


class Extractor:
    """A frozen network: uint8 images to float32 features.

    The one channel of thermal is repeated, not colored, so that no palette changes the metrics.
    Real and generated images are processed alike: bytes, then `preprocess`, then the network.
    """

    def __init__(
        self,
        name: str,
        dimensions: int,
        network: nn.Module,
        preprocess: Callable[[Tensor], Tensor],
        classifier: nn.Linear | None = None,
        *,
        metric: str | None = None,
        resize: str = "none",
        digest: str | None = None,
        precision: FeaturesPrecision = "fp32",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.name, self.dimensions, self.preprocess = name, dimensions, preprocess
        self.metric = metric or f"fd_{name.replace('-', '_')}"
        self.resize, self.memory_format = resize, memory_format
        self.precision: FeaturesPrecision = precision
        self.network = network.eval().requires_grad_(False)
        self.digest = digest or digest_of(self.network)
        """Ten digits of the weights' hash: statistics of other weights are never compared."""
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.network.to(self.dtype)
        self.network.to(memory_format=memory_format)
        self.classifier = classifier.requires_grad_(False) if classifier else None
        self.device = torch.device("cpu")

    def to(self, device: torch.device) -> "Extractor":
        self.network.to(device)
        if self.classifier:
            self.classifier.to(device)
        self.device = device
        return self

    @property
    def identity(self) -> str:
        """Names these features: there is no distance to statistics of other ones."""
        return f"{self.name} {self.digest} {self.precision}"

    def protocol(self, *, images: int, size: int) -> Protocol:
        """How metrics on these features are measured, of `images` images of `size` pixels."""
        return Protocol(
            features=self.name,
            weights=self.digest,
            images=images,
            resize=f"{size} px, {self.resize}",
            precision=self.precision,
        )

    @torch.inference_mode()
    def __call__(
        self, images: UInt8[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch dimensions"]:
        """Features of images in 0 .. 255, of one or three channels.

        They are float32, and independent of the precision that the training uses.
        """
        pixels = images.to(self.device).float().expand(-1, 3, -1, -1)
        with torch.autocast(self.device.type, enabled=False), without_tf32(self.precision):
            inputs = self.preprocess(pixels).to(self.dtype, memory_format=self.memory_format)
            return self.network(inputs).float()

    @property
    def classes(self) -> int:
        """The number of classes that the network was trained on; 0 if it has no classifier."""
        return self.classifier.out_features if self.classifier else 0

    @torch.inference_mode()
    def classify(
        self, features: Float[Tensor, "batch dimensions"]
    ) -> Float[Tensor, "batch classes"]:
        """Logits of the classes. Only for a network with `classes`."""
        assert self.classifier is not None
        return self.classifier(features)


@contextlib.contextmanager
def without_tf32(precision: FeaturesPrecision = "fp32") -> Generator[None]:
    """A context of full float32 if `precision` is fp32; otherwise nothing changes.

    A GPU's convolutions round to ten bits of mantissa by default (TF32), and a CPU's do not.
    """
    allowed = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed and precision != "fp32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = allowed


def digest_of(network: nn.Module) -> str:
    """Ten digits of a hash of a network's weights and their names."""
    hashed = hashlib.sha256()
    for name, value in network.state_dict().items():
        hashed.update(name.encode())
        hashed.update(value.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:10]


def fold_batch_norm(module: nn.Module, convolution: str, normalization: str) -> None:
    """Folds a batch normalization into the convolution before it: the same function with one pass
    over memory fewer. Both are named children of `module`, in evaluation mode."""
    conv, norm = module.get_submodule(convolution), module.get_submodule(normalization)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    setattr(module, convolution, fuse_conv_bn_eval(conv.eval(), norm.eval()))
    setattr(module, normalization, nn.Identity())
