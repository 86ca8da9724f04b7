"""How close a generated image is to the real thermal image of the same scene."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from thermal_search.metrics.lpips import PerceptualDistance

WINDOW, SIGMA = 11, 1.5
"""SSIM's Gaussian window: its width and its standard deviation in pixels."""

MAX_PSNR = 100.0
"""In dB: of equal images, whose PSNR is infinite. A mean over images must be finite."""

Pixels = UInt8[Tensor, "batch channels height width"]


class PairedMetrics:
    """Means over image pairs of L1, PSNR and SSIM, and of LPIPS if its network is given."""

    def __init__(self, perceptual: PerceptualDistance | None = None) -> None:
        self.perceptual = perceptual
        self.names = ["l1", "psnr", "ssim", *(["lpips"] if perceptual else [])]
        self.sums = torch.zeros(1 + len(self.names), dtype=torch.float64)
        """The number of pairs, then the sum of each metric."""

    def add(self, generated: Pixels, real: Pixels) -> None:
        """Adds a batch of pairs, both on one device."""
        values = [l1(generated, real), psnr(generated, real), ssim(generated, real)]
        if self.perceptual:
            values.append(self.perceptual(generated, real))
        self.sums[0] += len(generated)
        self.sums[1:] += torch.stack(values).double().sum(1).cpu()

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Adds up the sums, which are on the CPU, over the workers of `group`: a gloo group."""
        if dist.is_initialized() and dist.get_world_size(group) > 1:
            dist.all_reduce(self.sums, group=group)

    @property
    def means(self) -> dict[str, float]:
        """By name, in the order of `names`."""
        return dict(zip(self.names, (self.sums[1:] / self.sums[0]).tolist(), strict=True))


def l1(generated: Pixels, real: Pixels) -> Float[Tensor, "batch"]:
    """The mean absolute difference of an image's pixels: 0 .. 255, lower is better."""
    return (generated.float() - real.float()).abs().mean((1, 2, 3))


def psnr(generated: Pixels, real: Pixels) -> Float[Tensor, "batch"]:
    """The peak signal-to-noise ratio of each image in dB: at most 100, higher is better."""
    error = (generated.float() - real.float()).square().mean((1, 2, 3))
    return (10 * (255**2 / error).log10()).clamp(max=MAX_PSNR)


def ssim(generated: Pixels, real: Pixels) -> Float[Tensor, "batch"]:
    """The structural similarity (Wang et al. 2004): -1 .. 1, higher is better.

    With the paper's Gaussian window of 11 pixels around every pixel; images are reflected beyond
    their borders, as torchmetrics does it. Images need at least 6 pixels a side.
    """
    a, b = generated.double(), real.double()
    # Five means under one window, by rows and then by columns: 22 products a pixel, not 121.
    means = _blur(torch.cat([a, b, a * a, b * b, a * b], dim=1))
    mean_a, mean_b, aa, bb, ab = means.chunk(5, dim=1)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    covariance = ab - mean_a * mean_b
    variances = (aa - mean_a**2).clamp(min=0) + (bb - mean_b**2).clamp(min=0)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).mean((1, 2, 3)).float()


def _blur(images: Tensor) -> Tensor:
    offsets = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    window = (-(offsets**2) / (2 * SIGMA**2)).exp()
    window = window / window.sum()
    border = WINDOW // 2
    padded = F.pad(images, (border, border, border, border), mode="reflect").flatten(0, 1)[:, None]
    rows = F.conv2d(padded, window.view(1, 1, 1, -1))
    return F.conv2d(rows, window.view(1, 1, -1, 1)).view(images.shape)
