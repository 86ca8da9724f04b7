"""A generator with the reference batch of its virtual batch normalization.

Salimans et al. 2016, section 3.5.
"""

import torch
from torch import Tensor, nn

from thermal_search.images import Latent, Rgb, Thermal, to_network_range, to_pixels
from thermal_search.networks.deep_convolutional import DcganGenerator
from thermal_search.networks.virtual_batch_norm import VirtualBatchNorm
from thermal_search.networks.weight_norm import init_weight_norm, weight_norm


class ReferenceBatchGenerator(nn.Module):
    """A DCGAN generator with the reference batch of its virtual batch normalization.

    In training the reference batch is part of every forward pass, because its activations change
    with the weights and gradients flow through them. In evaluation one pass measures it.
    """

    def __init__(
        self, body: DcganGenerator, *, reference_batch_size: int, size: int, latent_size: int
    ) -> None:
        super().__init__()
        self.body = body
        last = body.levels[-1]
        assert isinstance(last, nn.Sequential)
        output = last[0]
        assert isinstance(output, nn.ConvTranspose2d)
        weight_norm(output, init_std=0.1, learns_gain=True)
        self.norms = [m for m in body.modules() if isinstance(m, VirtualBatchNorm)]
        self.has_reference_stats = False
        self.reference_rgb: Tensor
        self.reference_z: Tensor
        # Bytes take a quarter of the space of floats in every checkpoint and export.
        pixels = torch.empty(reference_batch_size, 3, size, size, dtype=torch.uint8)
        self.register_buffer("reference_rgb", pixels)
        self.register_buffer("reference_z", torch.empty(reference_batch_size, latent_size))
        # Only now: a system gives no memory to what has not been written to.
        self.reference_rgb.zero_()
        self.reference_z.uniform_()
        self.register_load_state_dict_post_hook(lambda *_: self._invalidate_stats())

    def set_reference_batch(self, rgb: Rgb) -> None:
        """Takes evenly spaced reference images from `rgb`."""
        count = len(self.reference_rgb)
        index = torch.linspace(0, len(rgb) - 1, count).round().long().to(rgb.device)
        self.reference_rgb.copy_(to_pixels(rgb[index]))
        self._invalidate_stats()

    @torch.no_grad()
    def init_from_data(self, rgb: Rgb, z: Latent) -> None:
        """Sets the scale and the mean of the images that it generates at first."""
        with init_weight_norm(self.body):
            self(rgb, z)
        self._invalidate_stats()

    def train(self, mode: bool = True) -> "ReferenceBatchGenerator":
        self._invalidate_stats()
        return super().train(mode)

    def _invalidate_stats(self) -> None:
        self.has_reference_stats = False

    def forward(self, rgb: Rgb, z: Latent) -> Thermal:
        count = 0
        if self.training or not self.has_reference_stats:
            count = len(self.reference_rgb)
            rgb = torch.cat([to_network_range(self.reference_rgb), rgb])
            z = torch.cat([self.reference_z, z])
        for norm in self.norms:
            norm.reference_count = count
        thermal = self.body(rgb, z)[count:]
        self.has_reference_stats = not self.training
        return thermal
