"""The weather of a recording: its light, and the temperatures that follow from it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from thermal_search.demo.materials import Material

Time = Literal["day", "dusk", "night"]
Vector = np.ndarray[Any, np.dtype[np.floating[Any]]]

TIMES: tuple[Time, ...] = ("day", "night", "day", "dusk")
"""Recordings take these in turn."""


def _by_time(values: dict[Time, tuple[float, float, float]]) -> dict[Time, Vector]:
    return {time: np.array(value, np.float32) for time, value in values.items()}


SUN = _by_time({"day": (1.0, 0.94, 0.84), "dusk": (0.55, 0.30, 0.12), "night": (0, 0, 0)})
DIFFUSE = _by_time(
    {
        "day": (0.34, 0.38, 0.44),
        "dusk": (0.16, 0.16, 0.22),
        "night": (0.010, 0.011, 0.017),
    }
)
ZENITH = _by_time(
    {
        "day": (0.10, 0.24, 0.58),
        "dusk": (0.07, 0.09, 0.22),
        "night": (0.003, 0.004, 0.011),
    }
)
HORIZON = _by_time(
    {
        "day": (0.48, 0.60, 0.76),
        "dusk": (0.62, 0.30, 0.14),
        "night": (0.020, 0.018, 0.022),
    }
)
CLOUD = _by_time(
    {
        "day": (0.72, 0.73, 0.75),
        "dusk": (0.30, 0.22, 0.22),
        "night": (0.013, 0.012, 0.014),
    }
)


@dataclass(frozen=True)
class Weather:
    """Temperatures in degrees Celsius, light relative to a clear noon's."""

    time: Time
    is_raining: bool
    clouds: float
    """Fraction of the sky that clouds cover."""

    air: float
    sun: Vector
    """The direction to the sun, of length 1: to the right, up, ahead."""

    sunlight: Vector
    diffuse: Vector
    """Red, green and blue of the sun's light and of the sky's."""

    insolation: float
    """How much the sun has warmed what it shines on: 1 after a clear noon."""

    visibility: float
    """Meters at which haze has taken 63 % of the contrast."""

    @classmethod
    def draw(cls, random: np.random.Generator, time: Time) -> "Weather":
        is_raining = random.random() < 0.2
        clouds = 1.0 if is_raining else float(random.choice([0.0, 0.35, 0.9]))
        clearness = max(1 - clouds, 0.0)
        elevation = np.radians(random.uniform(25, 55) if time == "day" else random.uniform(6, 12))
        azimuth = random.uniform(0, 2 * np.pi)
        flat = np.cos(elevation)
        sun = (flat * np.sin(azimuth), np.sin(elevation), flat * np.cos(azimuth))
        # The sun's light that clouds take away comes back from the whole sky.
        cloudy = DIFFUSE[time] + 0.35 * clouds * SUN[time]
        warmest = {"day": random.uniform(0.7, 1.0), "dusk": 0.35, "night": 0.0}[time]
        low, high = {"day": (6, 20), "dusk": (4, 16), "night": (0, 12)}[time]
        return cls(
            time=time,
            is_raining=is_raining,
            clouds=clouds,
            air=float(random.uniform(low, high)),
            sun=np.array(sun, np.float32),
            sunlight=(SUN[time] * clearness).astype(np.float32),
            diffuse=cloudy.astype(np.float32),
            insolation=float(warmest * clearness),
            visibility=float(random.uniform(50, 90) if is_raining else random.uniform(250, 900)),
        )

    @property
    def is_dark(self) -> bool:
        """Whether lamps are lit."""
        return self.time == "night" or (self.time == "dusk" and self.clouds > 0.5)

    @property
    def sky(self) -> float:
        """The apparent temperature of the sky above."""
        return self.air - 26 + 20 * self.clouds

    def celsius(self, material: Material, lit: float) -> float:
        """The temperature of a surface on which `lit` (0 .. 1) of the sunlight falls."""
        at_night = {"day": 0.0, "dusk": 0.5, "night": 1.0}[self.time]
        # Clouds and rain leave nothing that differs much from the air.
        cooling = 1 - 0.7 * self.clouds if material.night < 0 else 1 - 0.4 * self.is_raining
        stored = 0.25 * self.insolation if self.time != "night" else 0.0
        sun = material.sun * (0.85 * self.insolation * lit + stored)
        diffuse = 0.12 * material.sun * (self.time == "day")
        return self.air + sun + diffuse + material.night * at_night * cooling
