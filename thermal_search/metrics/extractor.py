"""A network whose features a distance is measured on, as every one of them is used."""

import contextlib
import hashlib
from collections.abc import Callable, Generator
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from thermal_search.metrics.protocol import Protocol

FeaturesPrecision = Literal["fp32", "bf16"]


class Extractor:
    """A frozen network: uint8 images to float32 features.

    Thermal has one channel and is repeated, not colored, so that no palette changes the score.
    Real and painted images go the same way: bytes, then `prepare`, then the network.
    """

    def __init__(
        self,
        name: str,
        dimensions: int,
        network: nn.Module,
        prepare: Callable[[Tensor], Tensor],
        classifier: nn.Linear | None = None,
        *,
        metric: str | None = None,
        resize: str = "none",
        digest: str | None = None,
        precision: FeaturesPrecision = "fp32",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        self.name, self.dimensions, self.prepare = name, dimensions, prepare
        self.metric = metric or f"fd_{name.replace('-', '_')}"
        self.resize, self.memory_format = resize, memory_format
        self.precision: FeaturesPrecision = precision
        self.network = network.eval().requires_grad_(False)
        self.digest = digest or digest_of(self.network)
        """Ten digits of the weights' hash: statistics of other weights never compare."""
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
        """Whose features these are: statistics of other ones have no distance to them."""
        return f"{self.name} {self.digest} {self.precision}"

    def protocol(self, *, images: int, size: int) -> Protocol:
        """How numbers on these features are measured, of `images` images of `size` pixels."""
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
        """Features of images in 0 .. 255, of one or three channels; float32 whatever trains."""
        pixels = images.to(self.device).float().expand(-1, 3, -1, -1)
        with torch.autocast(self.device.type, enabled=False), without_tf32(self.precision):
            prepared = self.prepare(pixels).to(self.dtype, memory_format=self.memory_format)
            return self.network(prepared).float()

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


@contextlib.contextmanager
def without_tf32(precision: FeaturesPrecision = "fp32") -> Generator[None]:
    """float32 to the last bit where that is asked for: a GPU's convolutions would round it to ten
    bits of mantissa (TF32), and its numbers would not be a CPU's."""
    rounds = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = rounds and precision != "fp32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = rounds


def digest_of(network: nn.Module) -> str:
    hashed = hashlib.sha256()
    for name, value in network.state_dict().items():
        hashed.update(name.encode())
        hashed.update(value.cpu().contiguous().numpy().tobytes())
    return hashed.hexdigest()[:10]


def fold(module: nn.Module, convolution: str, normalization: str) -> None:
    """Puts a batch normalization into the convolution before it: the same function, one pass over
    memory fewer. Both are named children of `module`, in evaluation mode."""
    conv, norm = module.get_submodule(convolution), module.get_submodule(normalization)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    setattr(module, convolution, fuse_conv_bn_eval(conv.eval(), norm.eval()))
    setattr(module, normalization, nn.Identity())
