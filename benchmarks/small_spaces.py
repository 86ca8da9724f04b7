"""The search spaces, with networks that a CPU can train in seconds.

The rule: widths are a quarter of those in `search_spaces`, and an eighth in the architectures whose
images cost most; channel bases are a 32nd; latents, embeddings and kernels are a quarter; there are
at most 3 residual blocks. Batches have 8 to 16 images of 32 px. Half-lives of moving averages, in
images, are a hundredth, as the budget is, and the warm-up of the Wasserstein critic, a number of
turns, is a tenth. There is no perceptual loss: the network that it could have measures the
distances. All other parameters are searched as they are.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

import search_spaces
from search_spaces import SearchSpace
from thermal_search.architectures import ARCHITECTURES
from thermal_search.tuning.space_flags import PERCEPTUAL

WIDTHS = {"width", "generator_width", "discriminator_width", "channel_max"}
EXPENSIVE = {
    "biggan", "cyclegan", "progressive_gan", "stylegan", "thermalgan", "unit", "wgan_gp",
}  # fmt: skip
QUARTERED = {
    "latent_size", "latent_chunk_size", "w_size", "embedding_size", "condition_channels",
    "num_kernels", "dim_per_kernel",
}  # fmt: skip
BATCHES = {"batch_size", "microbatch_size", "reference_batch_size"}
MIN_BATCH, MAX_BATCH, MAX_BLOCKS = 8, 16, 3
AT_128_PX = 4
"""A growing network's batch_size is that at 128 px: at 32 px its batches are as many times that."""

IMAGES = {
    "biggan": 640, "cgan": 2400, "cyclegan": 640, "dcgan": 4000, "gan": 1600, "improved_gan": 800,
    "pix2pix": 1600, "progressive_gan": 800, "stylegan": 640, "thermalgan": 800, "unit": 640,
    "wgan": 960, "wgan_gp": 480,
}  # fmt: skip
"""Budget of a run, in images shown: about equal compute, but no fewer than 30 steps, for which the
most expensive architectures take up to four times as long. One number for each architecture,
because seconds measured on a busy machine vary."""

Shrink = Callable[[Any], Any]


def small_space(architecture: str) -> SearchSpace:
    """The space of an architecture, made smaller."""
    space = search_spaces.load(architecture)
    grows, is_expensive = ARCHITECTURES[architecture].grows, architecture in EXPENSIVE
    shrink = _shrink(8 if is_expensive else 4, grows=grows)
    published = {
        name: shrink[name](value) if name in shrink else value
        for name, value in space.published.items()
    }
    small = {name: _small(kind, shrink.get(name)) for name, kind in space.space.items()}
    if PERCEPTUAL in small:
        small[PERCEPTUAL] = CategoricalDistribution(["none"])
    return replace(space, space=small, published=published)


def _shrink(width: int, *, grows: bool) -> dict[str, Shrink]:
    """What becomes of a parameter's value; widths are divided by `width`."""

    def batch(value: int) -> int:
        clipped = min(max(value, MIN_BATCH), MAX_BATCH)
        return clipped // AT_128_PX if grows else clipped

    return {
        **dict.fromkeys(WIDTHS, lambda value: _divided(value, width)),
        **dict.fromkeys(QUARTERED, lambda value: _divided(value, 4)),
        "channel_base": lambda value: _divided(value, 32),
        **dict.fromkeys(BATCHES, batch),
        # 0 is CycleGAN's choice for the size: 6 blocks at 32 px.
        "blocks": lambda value: min(value or MAX_BLOCKS, MAX_BLOCKS),
        "ema_half_life_images": lambda value: _divided(value, 100),
        "warmup_n_critic": lambda value: _divided(value, 10),
    }


def _divided(value: int, by: int) -> int:
    """Rounded up: what is not 0 stays so."""
    return -(-value // by)


def _small(kind: BaseDistribution, shrink: Shrink | None) -> BaseDistribution:
    if shrink is None:
        return kind
    if isinstance(kind, CategoricalDistribution):
        return CategoricalDistribution([*dict.fromkeys(map(shrink, kind.choices))])
    assert isinstance(kind, IntDistribution)
    return IntDistribution(shrink(kind.low), shrink(kind.high), log=kind.log)
