"""Features of an encoder from a file: DINOv2, CLIP, or one trained on thermal images.

The file maps float32 images [batch, 3, height, width] in 0 .. 1 to features [batch, dimensions].
Any other preprocessing of the encoder, such as normalization, is part of it:

    program = torch.export.export(encoder, (torch.rand(2, 3, 224, 224),),
                                  dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, "dinov2.pt2")
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermal_search.errors import MetricError, WeightsUnavailable
from thermal_search.metrics.extractor import Extractor, FeaturesPrecision

SUFFIXES = (".pt2", ".onnx")
DEFAULT_SIZE = 224
"""Height and width in pixels for an encoder that takes any."""


def build_encoder(file: Path, metric: str, precision: FeaturesPrecision) -> Extractor:
    """The encoder in a file; `metric` is the key of its Frechet distance.

    Raises WeightsUnavailable if `file` is no such encoder or cannot run here, MetricError for
    another precision than the encoder's own.
    """
    if precision != "fp32":
        raise MetricError(
            f"An encoder's file computes in its own precision, but {precision} was requested for "
            f"{file}: leave --features-precision out, or name inception or efficientnet-lite0."
        )
    if not file.is_file():
        raise WeightsUnavailable(f"--features must be an encoder's file, but {file} is not there.")
    if file.suffix.lower() == ".onnx":
        _require_onnxruntime(file)
    try:
        network = _ExportedProgram(file) if file.suffix.lower() == ".pt2" else _OnnxModel(file)
        height, width = (length or DEFAULT_SIZE for length in network.shape[2:])
        features = network(torch.zeros(1, 3, height, width))
    except Exception as error:  # any, from the file or its runtime
        reason = " ".join(str(error).split())[:200]
        raise WeightsUnavailable(
            f"--features must be an encoder saved by torch.export.save (.pt2) or as ONNX, but "
            f"{file} cannot be used as that ({reason}): save it again, as one file."
        ) from None
    if features.ndim != 2 or len(features) != 1:
        raise WeightsUnavailable(
            f"{file} must return features of shape [batch, dimensions], but returned "
            f"{list(features.shape)} for one image: pool or flatten them before it is saved."
        )
    return Extractor(
        file.stem,
        features.shape[1],
        network,
        lambda pixels: _preprocess(pixels, height, width),
        metric=metric,
        resize=f"antialiased to {width} x {height} px",
        digest=hashlib.sha256(file.read_bytes()).hexdigest()[:10],
    )


def _preprocess(pixels: Tensor, height: int, width: int) -> Tensor:
    size = (height, width)
    resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
    # Rounded to bytes, as a resized image on disk would be.
    return resized.round().clamp(0, 255) / 255


class _ExportedProgram(nn.Module):
    """A program of torch.export: operations and weights, no code that runs on loading."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        with _weights_only():
            program = torch.export.load(file)
        self.program = program.module()
        names = program.graph_signature.user_inputs
        nodes = [node for node in program.graph.nodes if node.name in names]
        (image,) = nodes
        self.shape = _fixed_lengths(image.meta["val"].shape)

    def train(self, mode: bool = True) -> "_ExportedProgram":
        # An exported program has one fixed mode: torch raises an error here.
        return self

    def forward(self, images: Tensor) -> Tensor:
        return _in_batches(self.program, images, self.shape[0])


class _OnnxModel(nn.Module):
    """An ONNX file, run by onnxruntime: on CUDA if its build supports it, else on the CPU."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        preferred = ("CUDAExecutionProvider", "CPUExecutionProvider")
        available = runtime.get_available_providers()
        # From its bytes, so that its hash covers all weights: none can be in another file.
        self.session = runtime.InferenceSession(
            file.read_bytes(), options, providers=[name for name in preferred if name in available]
        )
        (image,) = self.session.get_inputs()
        self.input = image.name
        self.shape = _fixed_lengths(image.shape)

    def forward(self, images: Tensor) -> Tensor:
        return _in_batches(self._run, images, self.shape[0]).to(images.device)

    def _run(self, images: Tensor) -> Tensor:
        content = images.contiguous().cpu().numpy()
        return torch.from_numpy(self.session.run(None, {self.input: content})[0])


@contextlib.contextmanager
def _weights_only() -> Generator[None]:
    """A context in which torch.export's loader unpickles tensors and plain values only."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _in_batches(run: Any, images: Tensor, size: int | None) -> Tensor:
    """Runs batches of a fixed size, the last one padded; `size` None: all images at once."""
    if size is None or size == len(images):
        return run(images)
    features: list[Tensor] = []
    for batch in images.split(size):
        padding = batch[-1:].expand(size - len(batch), -1, -1, -1)
        features.append(run(torch.cat([batch, padding]))[: len(batch)])
    return torch.cat(features)


def _fixed_lengths(shape: Iterable[Any]) -> list[int | None]:
    """The lengths of a shape; None for a dynamic one."""
    return [length if isinstance(length, int) else None for length in shape]


def _require_onnxruntime(file: Path) -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        raise WeightsUnavailable(
            f"{file} needs onnxruntime, which is not installed: "
            "pip install 'thermal-search[onnx]', or save the encoder with torch.export.save (.pt2)."
        )
