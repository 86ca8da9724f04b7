"""Weights of bounded gain (Miyato et al. 2018, arXiv 1802.05957), drawn orthogonal."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm


class SpectralNetwork(nn.Module):
    """A network whose weights have a largest singular value of 1."""

    def normalize_weights(self) -> None:
        """Draws orthogonal weights and puts all of them, so far, under the norm."""
        for module in list(self.modules()):
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.orthogonal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
                spectral_norm(module)

    def measure_weights(self) -> None:
        """Computes every weight once, in float32; to be called where `parametrize.cached` holds.

        Under bf16 the singular value would be rounded, and every use would measure it again.
        """
        device = next(self.parameters()).device
        with torch.autocast(device.type, enabled=False):
            for module in self.modules():
                if parametrize.is_parametrized(module, "weight"):
                    _ = module.weight

    def orthogonality_penalty(self) -> Tensor:
        """How far the filters of each layer are from orthogonal (Brock et al. 2019, eq. 3)."""
        weights = [p for name, p in self.named_parameters() if name.endswith("weight.original")]
        total = torch.zeros((), device=weights[0].device)
        with torch.autocast(total.device.type, enabled=False):
            for weight in weights:
                total = total + layer_orthogonality(weight.flatten(1))
        return total


def layer_orthogonality(filters: Float[Tensor, "filters inputs"]) -> Tensor:
    """The squared products of all pairs of different filters, summed."""
    if len(filters) <= filters.shape[1]:
        products = filters @ filters.T
        return (products - products.diag().diag()).square().sum()
    # The same sum from the smaller matrix: a dense root has 16,384 filters of 20 inputs, and their
    # products would fill a gigabyte.
    own = filters.square().sum(1)
    return (filters.T @ filters).square().sum() - own.square().sum()
