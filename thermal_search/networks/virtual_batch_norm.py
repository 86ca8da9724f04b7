"""Virtual batch normalization (Salimans et al. 2016, arXiv 1606.03498, section 3.5)."""

import torch
from torch import Tensor, nn


class VirtualBatchNorm(nn.Module):
    """Normalizes each image by the statistics of a fixed reference batch and its own.

    The first `reference_count` rows of the input are the reference batch. If that is 0, the
    statistics of the last reference batch apply. The image counts as one more reference.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.reference_count = 0
        self.reference_stats: tuple[Tensor, Tensor, int] | None = None

    def forward(self, features: Tensor) -> Tensor:
        references, images = features[: self.reference_count], features[self.reference_count :]
        with torch.autocast(features.device.type, enabled=False):
            normalized: list[Tensor] = []
            if self.reference_count:
                mean, square = _moments(references.float(), (0, 2, 3))
                self.reference_stats = mean.detach(), square.detach(), self.reference_count
                normalized.append(self._normalize(references, mean, square))
            else:
                assert self.reference_stats is not None, "The first pass needs a reference batch."
                mean, square, _ = self.reference_stats
            own_weight = 1 / (self.reference_stats[2] + 1)
            own_mean, own_square = _moments(images.float(), (2, 3))
            mean = torch.lerp(mean, own_mean, own_weight)
            square = torch.lerp(square, own_square, own_weight)
            normalized.append(self._normalize(images, mean, square))
            return torch.cat(normalized)

    def _normalize(self, features: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        scale = self.weight[:, None, None] * ((square - mean.square()).clamp(min=0) + 1e-5).rsqrt()
        return (features.float() - mean) * scale + self.bias[:, None, None]


def _moments(features: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return features.mean(over, keepdim=True), features.square().mean(over, keepdim=True)
