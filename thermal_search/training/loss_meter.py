"""Means of the losses between two evaluations."""

from collections.abc import Mapping

import torch
from torch import Tensor

from thermal_search.training.step import check_finite

STEPS_BETWEEN_CHECKS = 16
"""Steps between two checks of the losses on a GPU."""


class LossMeter:
    """Means of the loss terms over training steps, without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Adds one step's losses. Raises TrialDiverged if a sum is found not to be finite."""
        for name in losses:
            if name not in self.sums:
                self.sums[name] = torch.zeros((), device=self.device)
        sums = [self.sums[name] for name in losses]
        torch._foreach_add_(sums, list(losses.values()))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        self.steps += 1
        if self.device.type != "cpu" and self.steps % STEPS_BETWEEN_CHECKS == 0:
            check_finite(self.sums)

    def means(self) -> dict[str, float]:
        """The mean of each term over the steps. Raises TrialDiverged if one is not finite."""
        check_finite(self.sums)
        return {name: round(value.item() / self.steps, 6) for name, value in self.sums.items()}
