"""Historical averaging of weights (Salimans et al. 2016, arXiv 1606.03498)."""

import torch
from torch import Tensor, nn


class HistoricalAverage(nn.Module):
    """The mean of a network's past weights (historical averaging, section 3.3)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros(()))
        for number, parameter in enumerate(network.parameters()):
            self.register_buffer(f"mean_{number}", parameter.detach().clone())

    @torch.no_grad()
    def restart(self, network: nn.Module) -> None:
        """Begins again with the network's current weights."""
        self.steps.zero_()
        for mean, weight in zip(self.means, network.parameters(), strict=True):
            mean.copy_(weight)

    @property
    def means(self) -> list[Tensor]:
        """One per parameter, in the network's order."""
        return [mean for name, mean in self.named_buffers() if name.startswith("mean_")]

    def distance(self, network: nn.Module) -> Tensor:
        """The squared distance of the network's weights from their historical average: a sum over
        all weights, as in the paper. Its gradient by a weight does not depend on their number."""
        weights: list[Tensor] = list(network.parameters())
        differences = torch._foreach_sub(weights, self.means)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] - one kernel for all weights
        return torch.stack([difference.square().sum() for difference in differences]).sum()

    @torch.no_grad()
    def append(self, network: nn.Module) -> None:
        """Adds the network's current weights to the average."""
        self.steps += 1
        means = self.means
        weights: list[Tensor] = list(network.parameters())
        updates = torch._foreach_sub(weights, means)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        torch._foreach_mul_(updates, 1 / (self.steps + 1))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        torch._foreach_add_(means, updates)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
