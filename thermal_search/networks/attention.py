"""Self-attention over the positions of an image (Zhang et al. 2019, arXiv 1805.08318)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Self-attention with 2 x 2 pooled keys and values. Its gain starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        query_channels, value_channels = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, query_channels, 1, bias=False)
        self.key = nn.Conv2d(channels, query_channels, 1, bias=False)
        self.value = nn.Conv2d(channels, value_channels, 1, bias=False)
        self.output = nn.Conv2d(value_channels, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        def positions(images: Tensor) -> Tensor:
            return images.flatten(2).transpose(1, 2)  # [batch, positions, channels]

        query = positions(self.query(features))
        key = positions(F.max_pool2d(self.key(features), 2))
        value = positions(F.max_pool2d(self.value(features), 2))
        if torch.compiler.is_exporting():
            # As one of several heads: ONNX has no other attention.
            query, key, value = (tensor[:, None] for tensor in (query, key, value))
            attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)[:, 0]
        else:
            attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        attended = attended.transpose(1, 2).unflatten(2, features.shape[2:])
        return features + self.gain * self.output(attended)
