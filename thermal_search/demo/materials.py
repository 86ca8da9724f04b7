"""What surfaces are made of: what decides their heat, never their color."""

from dataclasses import dataclass

Color = tuple[float, float, float]
"""Linear red, green and blue: the fraction of light that a surface reflects, or what it emits."""

BLACK: Color = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Material:
    """Temperatures here are differences to the air, in kelvin."""

    name: str
    emissivity: float = 0.95
    """The rest is a reflection of the sky: cold glass and bare metal."""

    sun: float = 0.0
    """Warmer than the air where a clear noon's sun shines on it."""

    night: float = 0.0
    """Warmer than the air at night by stored heat, or colder by what is lost to the sky."""

    grain: float = 0.0
    """Relative variation of its color from place to place."""

    grain_m: float = 0.25
    """Size of that variation."""

    warmth_grain: float = 0.0
    """Variation of its temperature at the same places."""


SKY = Material("sky")
ASPHALT = Material("road", sun=6, night=3, grain=0.15, grain_m=0.12, warmth_grain=0.5)
MARKING = Material("marking", sun=4, night=2.2, grain=0.15)
CONCRETE = Material("sidewalk", sun=4, night=1.8, grain=0.14, grain_m=0.5, warmth_grain=0.4)
GRASS = Material("grass", sun=2.5, night=-3, grain=0.5, grain_m=0.2, warmth_grain=1.2)
HILL = Material("skyline", sun=1, night=-0.5, grain=0.3, grain_m=6, warmth_grain=0.6)
PLASTER = Material("wall", sun=6, night=3, grain=0.10, grain_m=0.8, warmth_grain=0.5)
BRICK = Material("brick", sun=7, night=4, grain=0.30, grain_m=0.16, warmth_grain=0.6)
ROOF = Material("roof", sun=9, night=-5, grain=0.3, grain_m=0.3, warmth_grain=0.5)
PANE = Material("window", emissivity=0.75, sun=1, night=6)
DOOR = Material("door", sun=5, night=2, grain=0.1)
FOLIAGE = Material("foliage", sun=1.5, night=0, grain=0.9, grain_m=0.3, warmth_grain=0.9)
BARK = Material("bark", sun=2, night=0.5, grain=0.5, grain_m=0.1)
METAL = Material("metal", emissivity=0.55, sun=3, night=-1)
CAR_BODY = Material("car body", emissivity=0.88, sun=7, night=-2.5)
HOOD = Material("hood", emissivity=0.9, sun=7, night=-2.5)
CAR_GLASS = Material("car glass", emissivity=0.72, sun=2, night=-2)
TIRE = Material("tire", sun=3, night=0)
UNDERBODY = Material("underbody", sun=0, night=0)
LIGHT = Material("light", sun=2, night=0)
EXHAUST = Material("exhaust")
SKIN = Material("skin")
CLOTHES = Material("clothes", grain=0.15, grain_m=0.1)

MATERIALS = tuple(value for value in list(globals().values()) if isinstance(value, Material))
INDEX = {material.name: index for index, material in enumerate(MATERIALS)}
"""The number of each material in the map of a scene's materials."""


@dataclass(frozen=True)
class Surface:
    """A material with what differs from object to object."""

    material: Material
    color: Color
    heat: float = 0.0
    """Kelvin added by an engine, a lamp or a body."""

    glow: Color = BLACK
    """Light that it emits."""
