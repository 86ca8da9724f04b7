"""How an architecture's Config describes progressive growing, and what changes with it."""

from collections.abc import Mapping
from dataclasses import dataclass

from thermal_search.architectures.additions import DecoderConfig
from thermal_search.architectures.translator import constant_then_linear
from thermal_search.networks.progressive import GrowthSchedule

BATCH_RESOLUTION = 128
"""The resolution at which batches have `batch_size` images."""


@dataclass(frozen=True, kw_only=True)
class GrowthConfig(DecoderConfig):
    """How progressive networks grow, and how their batches shrink meanwhile."""

    growth_fraction: float = 0.65
    """Fraction of the budget by the end of which the full size is reached."""

    start_resolution: int = 4
    """Height and width of the images that the networks generate and score at first, in pixels."""

    fade_fraction: float = 0.5
    """Fraction of the time at each resolution in which the next one fades in."""

    decay_start: float = 1.0
    """Fraction of the budget after which the learning rate falls linearly to 0; 1: never, as in the
    paper."""

    batch_size: int = 16
    """Images per worker and batch at 128 pixels. Twice as many at each half of that resolution,
    down to 16 pixels, and half as many at each double, up to 512: 128 to 4, as in the authors' code
    for one GPU."""

    @property
    def schedule(self) -> GrowthSchedule:
        return GrowthSchedule(
            size=self.size,
            start_resolution=self.start_resolution,
            growth_fraction=self.growth_fraction,
            fade_fraction=self.fade_fraction,
        )

    def batch_size_at(self, progress: float) -> int:
        resolution = min(max(self.schedule.at(progress).resolution, 16), 512)
        return max(self.batch_size * BATCH_RESOLUTION // resolution, 1)


def growing_learning_rate_factor(
    config: GrowthConfig, by_resolution: Mapping[int, float], images: int, budget_images: int
) -> float:
    """The factor on the learning rate: by the resolution reached (1 if it is not listed), and by
    `decay_start`."""
    resolution = config.schedule.at(images / budget_images).resolution
    decay = constant_then_linear(images, budget_images, config.decay_start)
    return by_resolution.get(resolution, 1.0) * decay
