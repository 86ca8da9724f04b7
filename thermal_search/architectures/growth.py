"""How an architecture's Config describes progressive growing."""

from dataclasses import dataclass

from thermal_search.architectures.translator import L1Config
from thermal_search.networks.progressive import GrowthSchedule


@dataclass(frozen=True, kw_only=True)
class GrowthConfig(L1Config):
    """The fields that `growth_schedule` reads: how progressive networks grow."""

    growth_fraction: float = 0.65
    """Fraction of the budget by the end of which the full size is reached."""

    start_resolution: int = 4
    """Height and width of the images that the networks generate and score at first, in pixels."""

    fade_fraction: float = 0.5
    """Fraction of the time at each resolution in which the next one fades in."""


def growth_schedule(config: GrowthConfig) -> GrowthSchedule:
    """The schedule that `config` describes."""
    return GrowthSchedule(
        size=config.size,
        start_resolution=config.start_resolution,
        growth_fraction=config.growth_fraction,
        fade_fraction=config.fade_fraction,
    )
