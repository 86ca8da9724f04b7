"""Spectral normalization (Miyato et al. 2018, arXiv 1802.05957) with orthogonal initialization."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm  # pyright: ignore[reportPrivateUsage]


class SpectralNorm(_SpectralNorm):
    """torch's spectral normalization, without its iterations on the meta device.

    There are no values there to iterate on, and torch's fifteen iterations of each new layer would
    take seconds each time the operations of a large network are counted.
    """

    def _power_method(self, weight_mat: Tensor, n_power_iterations: int) -> None:
        if not weight_mat.is_meta:
            super()._power_method(weight_mat, n_power_iterations)


class SpectralNetwork(nn.Module):
    """A network whose weight matrices have a largest singular value of 1."""

    def apply_spectral_norm(self) -> None:
        """Draws orthogonal weights for all present layers and normalizes them from now on."""
        for module in list(self.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                parametrize.register_parametrization(module, "weight", SpectralNorm(module.weight))

    def cache_weights(self) -> None:
        """Computes every normalized weight once, in float32; call it inside `parametrize.cached`.

        Otherwise autocast would round the singular values to bf16, and every use of a weight would
        run another power iteration.
        """
        layers = [m for m in self.modules() if parametrize.is_parametrized(m, "weight")]
        if not layers:
            return
        with torch.autocast(next(self.parameters()).device.type, enabled=False):
            for layer in layers:
                _ = layer.weight

    def orthogonality_penalty(self) -> Tensor:
        """The orthogonal regularization of all layers (Brock et al. 2019, eq. 3), unweighted.

        Half the equation's sum: the authors' code adds half of its gradient, and 1e-4 is the weight
        of that.
        """
        weights = [p for name, p in self.named_parameters() if name.endswith("weight.original")]
        total = torch.zeros((), device=weights[0].device)
        with torch.autocast(total.device.type, enabled=False):
            for weight in weights:
                total = total + 0.5 * layer_orthogonality_penalty(weight.flatten(1))
        return total


def apply_spectral_norm(network: nn.Module) -> None:
    """Applies spectral normalization to each `SpectralNetwork` that `network` is or has."""
    for module in list(network.modules()):
        if isinstance(module, SpectralNetwork):
            module.apply_spectral_norm()


def layer_orthogonality_penalty(filters: Float[Tensor, "filters inputs"]) -> Tensor:
    """The sum of the squared dot products of all pairs of different filters."""
    if len(filters) <= filters.shape[1]:
        products = filters @ filters.T
        return (products - products.diag().diag()).square().sum()
    # The same sum from the smaller Gram matrix: for a dense layer with 16,384 filters of 20 inputs
    # the larger one would take a gigabyte.
    own = filters.square().sum(1)
    return (filters.T @ filters).square().sum() - own.square().sum()
