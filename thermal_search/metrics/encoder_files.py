"""Features of anybody's encoder, from a file: DINOv2, CLIP, a thermal one of one's own.

The file maps float32 images [batch, 3, height, width] in 0 .. 1 to features [batch, dimensions];
what else the encoder wants (normalization, say) is inside it:

    program = torch.export.export(encoder, (torch.rand(2, 3, 224, 224),),
                                  dynamic_shapes=({0: torch.export.Dim.AUTO},))
    torch.export.save(program, "dinov2.pt2")
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thermal_search.errors import MetricError, WeightsUnavailable
from thermal_search.metrics.extractor import Extractor, FeaturesPrecision

SUFFIXES = (".pt2", ".onnx")


def encoder(file: Path, metric: str, precision: FeaturesPrecision) -> Extractor:
    """WeightsUnavailable where `file` holds no encoder of this kind, or cannot be run here."""
    if precision != "fp32":
        raise MetricError(
            f"An encoder's file computes in its own precision, but {precision} was asked for "
            f"{file}: leave --features-precision out, or name inception or efficientnet-lite0."
        )
    if not file.is_file():
        raise WeightsUnavailable(f"--features must be an encoder's file, but {file} is not there.")
    if file.suffix.lower() == ".onnx":
        _require_onnxruntime(file)
    try:
        network = _Exported(file) if file.suffix.lower() == ".pt2" else _Onnx(file)
        shape = network.shape
        size = [part if isinstance(part, int) else 224 for part in shape[2:]]
        found = network(torch.zeros(1, 3, *size))
    except Exception as error:  # whatever the file or its runtime did
        reason = " ".join(str(error).split())[:200]
        raise WeightsUnavailable(
            f"--features must be an encoder saved by torch.export.save (.pt2) or as ONNX, but "
            f"{file} cannot be used as that ({reason}): save it again, as one file."
        ) from None
    if found.ndim != 2 or len(found) != 1:
        raise WeightsUnavailable(
            f"{file} must return features of shape [batch, dimensions], but returned "
            f"{list(found.shape)} for one image: pool or flatten them before it is saved."
        )
    height, width = size
    return Extractor(
        file.stem,
        found.shape[1],
        network,
        lambda pixels: _prepare(pixels, height, width),
        metric=metric,
        resize=f"antialiased to {width} x {height} px",
        digest=hashlib.sha256(file.read_bytes()).hexdigest()[:10],
    )


def _prepare(pixels: Tensor, height: int, width: int) -> Tensor:
    size = (height, width)
    resized = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False)
    # Bytes again, as a resized image on disk would be.
    return resized.round().clamp(0, 255) / 255


class _Exported(nn.Module):
    """A program of torch.export: operations and weights, nothing that runs on loading."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        with _weights_only():
            program = torch.export.load(file)
        self.program = program.module()
        names = program.graph_signature.user_inputs
        nodes = [node for node in program.graph.nodes if node.name in names]
        (image,) = nodes
        self.shape: list[Any] = [
            part if isinstance(part, int) else None for part in image.meta["val"].shape
        ]

    def train(self, mode: bool = True) -> "_Exported":
        # An exported program is what it was exported as, and refuses to be asked.
        return self

    def forward(self, images: Tensor) -> Tensor:
        return _in_batches(self.program, images, self.shape[0])


class _Onnx(nn.Module):
    """An ONNX file, run by onnxruntime: on the CPU, or on CUDA where its build has that."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        runtime: Any = importlib.import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        known = runtime.get_available_providers()
        # From its bytes, so that what is hashed is all of it: no weights in files beside it.
        self.session = runtime.InferenceSession(
            file.read_bytes(), options, providers=[name for name in wanted if name in known]
        )
        (image,) = self.session.get_inputs()
        self.input = image.name
        self.shape: list[Any] = [part if isinstance(part, int) else None for part in image.shape]

    def forward(self, images: Tensor) -> Tensor:
        return _in_batches(self._run, images, self.shape[0]).to(images.device)

    def _run(self, images: Tensor) -> Tensor:
        content = images.contiguous().cpu().numpy()
        return torch.from_numpy(self.session.run(None, {self.input: content})[0])


@contextlib.contextmanager
def _weights_only() -> Generator[None]:
    """torch.export's loader unpickles whatever it finds; this way it takes tensors alone."""
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
    """Of the size the file was saved with, where that is fixed; the last one filled up."""
    if size is None or size == len(images):
        return run(images)
    parts: list[Tensor] = []
    for part in images.split(size):
        filling = part[-1:].expand(size - len(part), -1, -1, -1)
        parts.append(run(torch.cat([part, filling]))[: len(part)])
    return torch.cat(parts)


def _require_onnxruntime(file: Path) -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        raise WeightsUnavailable(
            f"{file} needs onnxruntime, which is not installed: "
            "pip install 'thermal-search[onnx]', or save the encoder with torch.export.save (.pt2)."
        )
