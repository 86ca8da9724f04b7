"""A trained generator as one network without hidden randomness, which torch.export can trace.

Its inputs are, in this order and as far as the generator has them:

    rgb    float32 [batch, 3, height, width], -1 .. 1
    z      float32 [batch, latent], a latent vector for each image
    noise  float32 [batch, numbers], uniform in 0 .. 1, for dropout that is active at test time
"""

import copy
import math
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thermal_search.architectures.translator import Translator
from thermal_search.images import Latent, Rgb, Thermal
from thermal_search.networks.unet import Dropout

Noise = Float[Tensor, "batch numbers"]
Inputs = dict[str, Tensor]
"""The tensors of a forward pass by name."""


class PortableGenerator(nn.Module):
    """What a translator generates in evaluation mode, as a function of its inputs alone.

    It is a copy: normalized weights are computed once and for all, and dropout takes its noise from
    an input. The translator must be in evaluation mode, on the CPU.
    """

    def __init__(self, translator: Translator) -> None:
        super().__init__()
        size = translator.config.size
        rgb = torch.zeros(1, 3, size, size)
        z = translator.draw_latent(1, torch.Generator().manual_seed(0))
        with torch.no_grad():
            # Virtual batch normalization measures its reference batch in the first pass.
            self.noise_shapes = _dropout_shapes(translator, rgb, z)
        self.translator = copy.deepcopy(translator).eval().requires_grad_(False)
        for name, _ in list(self.translator.named_children()):
            if name != "generator":
                delattr(self.translator, name)
        _compute_parametrizations(self.translator)
        self._pieces = _NoisePieces()
        _replace_dropout(self.translator, self._pieces)
        self.size: int = size
        self.latent_size = 0 if z is None else z.shape[1]
        # Noise belongs to one size.
        self.size_multiple = 0 if self.noise_size else translator.size_multiple or 0
        """Height and width may be any multiples of this; 0 if they must be `size`."""

    @property
    def noise_size(self) -> int:
        """Numbers in `noise` for each image; 0 if the generator has no dropout at test time."""
        return sum(math.prod(shape) for shape in self.noise_shapes)

    def forward(self, rgb: Rgb, z: Latent | None = None, noise: Noise | None = None) -> Thermal:
        if noise is not None:
            sizes = [math.prod(shape) for shape in self.noise_shapes]
            parts = zip(noise.split(sizes, dim=1), self.noise_shapes, strict=True)
            self._pieces.rest = iter([part.unflatten(1, shape) for part, shape in parts])
        return self.translator.translate(rgb, z)

    def draw(self, count: int, seed: int) -> Inputs:
        """`z` and `noise` of `count` images, as far as the generator has them."""
        random = torch.Generator().manual_seed(seed)
        drawn: Inputs = {}
        if (z := self.translator.draw_latent(count, random)) is not None:
            drawn["z"] = z
        if self.noise_size:
            drawn["noise"] = torch.rand(count, self.noise_size, generator=random)
        return drawn

    def remove(self, names: list[str]) -> None:
        """Removes parameters and buffers that no forward pass uses."""
        for name in names:
            module, _, attribute = name.rpartition(".")
            delattr(self.get_submodule(module), attribute)


class _NoisePieces:
    """The noise of a forward pass, one piece for each dropout layer, in the order of their use."""

    rest: Iterator[Tensor]


class _NoiseDropout(nn.Module):
    """Dropout by given noise: drops a feature if its number is below the probability."""

    def __init__(self, probability: float, pieces: _NoisePieces) -> None:
        super().__init__()
        self.probability, self.pieces = probability, pieces

    def forward(self, features: Tensor) -> Tensor:
        is_kept = next(self.pieces.rest) >= self.probability
        return features * is_kept.to(features.dtype) / (1 - self.probability)


@torch.no_grad()
def _compute_parametrizations(network: nn.Module) -> None:
    """Replaces normalized weights by their values.

    `parametrize.remove_parametrizations` would also remove them from the network that this is a
    copy of: both have the same class, which it changes.
    """
    for module in list(network.modules()):
        if not parametrize.is_parametrized(module):
            continue
        parametrizations = module.get_submodule("parametrizations")
        values = {name: getattr(module, name) for name, _ in parametrizations.named_children()}
        delattr(module, "parametrizations")
        module.__class__ = type(module).__bases__[0]
        for name, value in values.items():
            module.register_parameter(name, nn.Parameter(value.detach(), requires_grad=False))


def _active_dropout(module: nn.Module) -> bool:
    return isinstance(module, Dropout) and module.at_test and module.probability > 0


def _replace_dropout(network: nn.Module, pieces: _NoisePieces) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if _active_dropout(child):
                assert isinstance(child, Dropout)
                setattr(parent, name, _NoiseDropout(child.probability, pieces))


@contextmanager
def _watched_dropout(translator: Translator) -> Generator[list[tuple[Tensor, Tensor]]]:
    """Collects input and output of every active dropout layer of the generator."""
    seen: list[tuple[Tensor, Tensor]] = []

    def watch(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append((inputs[0], output))

    layers = [module for module in translator.generator.modules() if _active_dropout(module)]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _dropout_shapes(translator: Translator, rgb: Rgb, z: Latent | None) -> list[torch.Size]:
    with _watched_dropout(translator) as seen:
        translator.translate(rgb, z)
    return [features.shape[1:] for features, _ in seen]


@torch.no_grad()
def generate_with_inputs(translator: Translator, rgb: Rgb, seed: int) -> tuple[Thermal, Inputs]:
    """What the trained generator makes of `rgb` with its own dropout, and the inputs with which a
    `PortableGenerator` must generate the same."""
    z = translator.draw_latent(len(rgb), torch.Generator().manual_seed(seed))
    with torch.random.fork_rng(devices=[]), _watched_dropout(translator) as seen:
        torch.manual_seed(seed)
        thermal = translator.translate(rgb, z)
    inputs: Inputs = {"rgb": rgb} | ({} if z is None else {"z": z})
    if seen:
        # 1 where a feature was kept, 0 where it was dropped: above and below any probability.
        kept = [((output != 0) | (features == 0)).float() for features, output in seen]
        inputs["noise"] = torch.cat([piece.flatten(1) for piece in kept], dim=1)
    return thermal, inputs


def unused_state(program: torch.export.ExportedProgram) -> list[str]:
    """Names of parameters and buffers that a traced network does not read."""
    signature = program.graph_signature
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    used = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    return [name for placeholder, name in targets.items() if placeholder not in used]
