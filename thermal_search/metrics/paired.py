"""How close a painted image is to the one the camera took of the same scene."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from thermal_search.metrics.perceptual import PerceptualDistance

WINDOW, SIGMA = 11, 1.5
LIMIT_DB = 100.0
"""PSNR of equal images, which have no noise: a mean over images must stay a number."""

Pixels = UInt8[Tensor, "batch channels height width"]


class PairedMeasures:
    """Means over pairs of L1, PSNR and SSIM, and of LPIPS where its network is given."""

    def __init__(self, perceptual: PerceptualDistance | None = None) -> None:
        self.perceptual = perceptual
        self.names = ["l1", "psnr", "ssim", *(["lpips"] if perceptual else [])]
        self.sums = torch.zeros(1 + len(self.names), dtype=torch.float64)

    def add(self, painted: Pixels, real: Pixels) -> None:
        """A batch of pairs, on one device."""
        found = [l1(painted, real), psnr(painted, real), ssim(painted, real)]
        if self.perceptual:
            found.append(self.perceptual(painted, real))
        self.sums[0] += len(painted)
        self.sums[1:] += torch.stack(found).double().sum(1).cpu()

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Sums over the workers of `group`, which must speak gloo: the sums are on the CPU."""
        if dist.is_initialized() and dist.get_world_size(group) > 1:
            dist.all_reduce(self.sums, group=group)

    @property
    def means(self) -> dict[str, float]:
        """By name; in the order of `names`."""
        return dict(zip(self.names, (self.sums[1:] / self.sums[0]).tolist(), strict=True))


def l1(painted: Pixels, real: Pixels) -> Float[Tensor, "batch"]:
    """Mean absolute difference of an image's pixels: 0 .. 255, lower is better."""
    return (painted.float() - real.float()).abs().mean((1, 2, 3))


def psnr(painted: Pixels, real: Pixels) -> Float[Tensor, "batch"]:
    """Peak signal-to-noise ratio in dB, an image at a time: higher is better, at most 100."""
    error = (painted.float() - real.float()).square().mean((1, 2, 3))
    return (10 * (255**2 / error).log10()).clamp(max=LIMIT_DB)


def ssim(painted: Pixels, real: Pixels) -> Float[Tensor, "batch"]:
    """Structural similarity (Wang et al. 2004): -1 .. 1, higher is better.

    With the paper's Gaussian window of 11 pixels around every pixel, the image mirrored beyond its
    borders, as torchmetrics does it. At least 6 pixels a side.
    """
    a, b = painted.double(), real.double()
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
    places = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    window = (-(places**2) / (2 * SIGMA**2)).exp()
    window = window / window.sum()
    border = WINDOW // 2
    padded = F.pad(images, (border, border, border, border), mode="reflect").flatten(0, 1)[:, None]
    rows = F.conv2d(padded, window.view(1, 1, 1, -1))
    return F.conv2d(rows, window.view(1, 1, -1, 1)).view(images.shape)
