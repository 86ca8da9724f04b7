"""Minibatch discrimination (Salimans et al. 2016, arXiv 1606.03498), as in the authors' release."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class MinibatchDiscrimination(nn.Module):
    """The similarity of each image's features to the others of its batch (section 3.2)."""

    def __init__(self, features: int, num_kernels: int, dim_per_kernel: int) -> None:
        super().__init__()
        self.kernels = nn.Parameter(torch.empty(num_kernels, dim_per_kernel, features))
        with torch.no_grad():
            self.kernels.normal_().mul_(0.05)
        self.log_scale = nn.Parameter(torch.zeros(num_kernels, dim_per_kernel))
        self.bias = nn.Parameter(torch.full((num_kernels,), -1.0))

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch kernels"]:
        """From 0, if no other image is similar, to batch - 1, if all are equal, plus the bias."""
        with torch.autocast(features.device.type, enabled=False):
            similarity = torch.exp(-self._distances(features.float())).sum(1)
            return similarity - 1 + self.bias  # without the image itself

    @torch.no_grad()
    def init_from_data(self, features: Float[Tensor, "batch features"]) -> None:
        """Makes the nearest other image about 2 away from each, and the mean similarity 0."""
        if len(features) < 2:
            return
        others = self._distances(features)
        others.diagonal().fill_(torch.inf)
        half_nearest = 0.5 * others.amin(1).mean(0)  # of each kernel
        # Copies of an image are at distance 0.
        self.log_scale.sub_(half_nearest.clamp(min=1e-6).log()[:, None])
        self.bias.sub_(self(features).mean(0))

    def _distances(self, features: Tensor) -> Float[Tensor, "batch batch kernels"]:
        norm = torch.linalg.vector_norm(self.kernels, dim=2)
        kernels = self.kernels * (self.log_scale.exp() / norm)[:, :, None]
        projected = F.linear(features, kernels.flatten(0, 1)).unflatten(1, norm.shape)
        return (projected[:, None] - projected[None]).abs().sum(3)
