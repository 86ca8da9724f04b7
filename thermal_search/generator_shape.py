"""Builds the network that a description and its weights belong to, and no other.

A config.json is easily edited: one number in it may describe a network that takes all memory, or
minutes to build. The weights tell how large it can be.
"""

import contextlib
from collections.abc import Generator, Mapping

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from thermal_search import architectures
from thermal_search.architectures.translator import Translator
from thermal_search.checkpoint import GeneratorDescription

MAX_TENSORS = 3_000
"""Parameters and buffers of all networks of an architecture: the deepest have hundreds."""

MAX_RATIO, FREE_ELEMENTS = 4, 2**27
"""A translator may have so many times the numbers of its generator, and so many more: it has
discriminators too, which an export does not hold."""


class TooLarge(ValueError):
    """A description of a network that is out of proportion to its weights."""


def build_for(description: GeneratorDescription, weights: Mapping[str, Tensor]) -> Translator:
    """The translator of a description; its generator may still differ from the weights.

    TooLarge if it has far more parameters than the weights; any error of the architecture if it
    cannot be built.
    """
    elements = sum(value.numel() for value in weights.values())
    with _bounded(MAX_RATIO * elements + FREE_ELEMENTS):
        return architectures.build(
            description.architecture, description.size, description.parameters
        )


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
def _bounded(max_elements: int) -> Generator[None]:
    """A context in which modules with more parameters and buffers in total raise TooLarge.

    A layer registers a parameter before it initializes it: until then, the system has given it no
    memory.
    """
    tensors = elements = 0

    def count(_module: nn.Module, _name: str, tensor: Tensor | None) -> None:
        nonlocal tensors, elements
        if tensor is not None:
            tensors, elements = tensors + 1, elements + tensor.numel()
        if tensors > MAX_TENSORS or elements > max_elements:
            raise TooLarge(
                f"its networks have more than {MAX_TENSORS:,} tensors or {max_elements:,} numbers"
            )

    hooks = (
        register_module_parameter_registration_hook(count),
        register_module_buffer_registration_hook(count),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
