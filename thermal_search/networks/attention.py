"""Attention over the places of an image (Zhang et al. 2019, arXiv 1805.08318)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Every place looks at all others, a quarter of them; silent at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, narrow, 1, bias=False)
        self.key = nn.Conv2d(channels, narrow, 1, bias=False)
        self.value = nn.Conv2d(channels, half, 1, bias=False)
        self.output = nn.Conv2d(half, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        def places(seen: Tensor) -> Tensor:
            return seen.flatten(2).transpose(1, 2)  # [batch, places, channels]

        query = places(self.query(features))
        key = places(F.max_pool2d(self.key(features), 2))
        value = places(F.max_pool2d(self.value(features), 2))
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        seen = seen.transpose(1, 2).unflatten(2, features.shape[2:])
        return features + self.gain * self.output(seen)
