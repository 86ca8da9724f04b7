"""Virtual batch normalization (Salimans et al. 2016, arXiv 1606.03498, section 3.5)."""

import torch
from torch import Tensor, nn


class VirtualBatchNorm(nn.Module):
    """Normalizes each image by a fixed reference batch and itself, never by its neighbors.

    The network that owns it puts `references` reference images before the batch. With none of them
    there, what they last measured is used. The image itself counts as one among the references.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.references = 0
        self.measured: tuple[Tensor, Tensor, int] | None = None

    def forward(self, features: Tensor) -> Tensor:
        references, images = features[: self.references], features[self.references :]
        with torch.autocast(features.device.type, enabled=False):
            shown: list[Tensor] = []
            if self.references:
                mean, square = _moments(references.float(), (0, 2, 3))
                self.measured = mean.detach(), square.detach(), self.references
                shown.append(self._normalize(references, mean, square))
            else:
                assert self.measured is not None, "No reference batch has been seen."
                mean, square, _ = self.measured
            share = 1 / (self.measured[2] + 1)
            own_mean, own_square = _moments(images.float(), (2, 3))
            mean = torch.lerp(mean, own_mean, share)
            square = torch.lerp(square, own_square, share)
            shown.append(self._normalize(images, mean, square))
            return torch.cat(shown)

    def _normalize(self, features: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        scale = self.weight[:, None, None] * ((square - mean.square()).clamp(min=0) + 1e-5).rsqrt()
        return (features.float() - mean) * scale + self.bias[:, None, None]


def _moments(features: Tensor, over: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return features.mean(over, keepdim=True), features.square().mean(over, keepdim=True)
