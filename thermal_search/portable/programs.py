"""Writes a portable generator as a program of torch.export (.pt2) or as ONNX, and runs it."""

import importlib
import importlib.util
import logging
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from thermal_search.errors import SearchError
from thermal_search.portable.network import Inputs, PortableGenerator, unused_state

OUTPUT = "thermal"
"""The name of an ONNX model's output."""

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

Run = Callable[[Inputs], Tensor]
"""Generates thermal images from inputs by name."""


def require_onnx() -> None:
    """SearchError if a package that writes or runs ONNX is missing."""
    for package in ONNX_PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise SearchError(
                f"--format onnx needs {package}, which is not installed: "
                "pip install 'thermal-search[onnx]', or choose --format pt2."
            )


def trace(network: PortableGenerator) -> ExportedProgram:
    """The generator as a graph of operations, for any batch and for the sizes it can have.

    Removes from `network` what no forward pass reads, such as the layers that progressive growing
    has left behind.
    """
    program = _trace(network)
    if unused := unused_state(program):
        network.remove(unused)
        program = _trace(network)
    return program


def _trace(network: PortableGenerator) -> ExportedProgram:
    # Neither 0 nor 1 image: torch.export would take these for fixed.
    example: Inputs = {"rgb": torch.zeros(2, 3, *_example_size(network))}
    example |= network.draw(2, seed=0)
    with torch.no_grad(), _quiet():
        return torch.export.export(
            network,
            tuple(example.get(name) for name in ("rgb", "z", "noise")),
            dynamic_shapes=_dynamic_shapes(network, example),
        )


def _example_size(network: PortableGenerator) -> tuple[int, int]:
    """Two different sides, neither of them special, if the sides may differ from the size."""
    multiple = network.size_multiple
    if not multiple:
        return network.size, network.size
    return network.size + 2 * multiple, network.size + 3 * multiple


def _dynamic_shapes(network: PortableGenerator, example: Inputs) -> dict[str, Any]:
    batch = Dim("batch")
    shapes: dict[str, Any] = {
        name: {0: batch} if name in example else None for name in ("rgb", "z", "noise")
    }
    if multiple := network.size_multiple:
        for axis, name in ((2, "height"), (3, "width")):
            length = Dim(name) if multiple == 1 else multiple * Dim(f"{name}_{multiple}")
            shapes["rgb"][axis] = length
    return shapes


def save_pt2(program: ExportedProgram, path: Path) -> None:
    with _quiet():
        torch.export.save(program, path)


def save_onnx(program: ExportedProgram, names: list[str], path: Path) -> None:
    """Writes one file, which holds the weights too."""
    with _quiet():
        torch.onnx.export(
            program,
            f=path,
            dynamo=True,
            input_names=names,
            output_names=[OUTPUT],
            external_data=False,
            verbose=False,
        )


def load_pt2(path: Path) -> Run:
    with _quiet():
        network = torch.export.load(path).module()

    def run(inputs: Inputs) -> Tensor:
        with torch.no_grad():
            return network(*(inputs.get(name) for name in ("rgb", "z", "noise")))

    return run


def load_onnx(path: Path) -> Run:
    """Runs on the CPU."""
    runtime: Any = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> Tensor:
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
        return torch.from_numpy(session.run(None, arrays)[0])

    return run


@contextmanager
def _quiet() -> Generator[None]:
    """A context without the remarks of torch's exporters, which are about their own insides."""
    names = ("torch.export", "torch.onnx", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
