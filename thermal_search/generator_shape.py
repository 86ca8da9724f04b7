"""Whether a description fits the weights that came with it, found out without any memory.

A config.json is easily edited: one number in it may describe a network that takes all memory, or
minutes to build. So the network is first built on torch's meta device, where tensors have shapes
but no numbers.
"""

import contextlib
from collections.abc import Generator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from thermal_search import architectures
from thermal_search.checkpoint import GeneratorDescription

MAX_PARAMETERS = 20_000
"""Tensors of all networks of an architecture: the deepest of the search spaces have hundreds."""

MAX_ELEMENTS = 2**34
"""Numbers in all of these tensors, while nothing is known of the weights."""

MAX_RATIO, FREE_ELEMENTS = 4, 2**26
"""A translator may have so many times the numbers of its generator, and so many more: it has
discriminators too, which an export does not hold."""


class TooLarge(ValueError):
    """A description of a network that nobody has trained."""


def generator_shape(description: GeneratorDescription) -> Mapping[str, Tensor]:
    """The tensors of a generator by name, on the meta device.

    TooLarge if the whole translator is out of proportion; any error of the architecture if it
    cannot be built.
    """
    with torch.device("meta"), _bounded():
        translator = architectures.build(
            description.architecture, description.size, description.parameters
        )
    shape = translator.generator.state_dict()
    elements = sum(value.numel() for value in translator.state_dict().values())
    if elements > MAX_RATIO * sum(v.numel() for v in shape.values()) + FREE_ELEMENTS:
        raise TooLarge(f"its networks have {elements:,} parameters")
    return shape


def byte_count(tensors: Mapping[str, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())


def first_difference(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """The first difference in names, shapes or types; empty if there is none."""
    for name in [*expected, *weights]:
        if name not in weights:
            return f"{name} is missing"
        if name not in expected:
            return f"{name} is unknown"
        if weights[name].shape != expected[name].shape:
            return f"{name} has shape {[*weights[name].shape]}, not {[*expected[name].shape]}"
        if weights[name].dtype != expected[name].dtype:
            return f"{name} has type {weights[name].dtype}, not {expected[name].dtype}"
    return ""


@contextlib.contextmanager
def _bounded() -> Generator[None]:
    """A context in which modules with too many parameters in total raise TooLarge."""
    tensors = elements = 0

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter | None) -> None:
        nonlocal tensors, elements
        if parameter is not None:
            tensors, elements = tensors + 1, elements + parameter.numel()
        if tensors > MAX_PARAMETERS or elements > MAX_ELEMENTS:
            raise TooLarge(f"its networks have more than {elements - 1:,} parameters")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
