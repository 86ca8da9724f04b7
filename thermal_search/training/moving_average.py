"""The exponential moving average (EMA) of a generator's weights, and its batch normalization."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import nn

from thermal_search.architectures.translator import Translator
from thermal_search.images import Rgb

EMA_RAMPUP = 0.05
"""The half-life is at most this fraction of the images shown so far (Karras et al. 2020, arXiv
1912.04958, the official code)."""


class MovingAverage:
    """An exponential moving average of the generator."""

    def __init__(self, generator: nn.Module) -> None:
        self.network = copy.deepcopy(generator).requires_grad_(False)

    @classmethod
    def of(cls, translator: Translator) -> "MovingAverage | None":
        """The average of the translator's generator; None if its config asks for none."""
        return cls(translator.generator) if translator.config.ema_half_life_images else None

    @torch.no_grad()
    def update(
        self, generator: nn.Module, images: int, images_so_far: int, half_life: float
    ) -> None:
        """Moves toward `generator`, which has since been trained on `images` more images.

        `half_life` is in images shown. Buffers and extra state are copied, not averaged.
        """
        # Shorter at the start: otherwise a short trial would be evaluated with its first weights.
        half_life = min(half_life, images_so_far * EMA_RAMPUP)
        decay = 0.5 ** (images / half_life)
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage] - one kernel for all weights
            list(self.network.parameters()), list(generator.parameters()), 1 - decay
        )
        if buffers := list(self.network.buffers()):
            torch._foreach_copy_(buffers, list(generator.buffers()))  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]
        for averaged, live in zip(self.network.modules(), generator.modules(), strict=True):
            if type(live).get_extra_state is not nn.Module.get_extra_state:
                averaged.set_extra_state(live.get_extra_state())


@torch.no_grad()
def recompute_batch_norm(
    network: nn.Module, translate: Callable[[Rgb], object], batches: Iterable[Rgb]
) -> None:
    """Recomputes the running statistics of a network's batch normalization, if it has any, by
    translating `batches`.

    The live generator's statistics belong to other weights: with them, averaged weights score far
    worse than they are ("standing statistics", Brock et al. 2019, arXiv 1809.11096, app. C).
    """
    norms = [
        m
        for m in network.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)  # pyright: ignore[reportPrivateUsage] - the one base of 1d, 2d, 3d
        and m.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    for rgb in batches:
        translate(rgb)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
