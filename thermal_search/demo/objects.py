"""What stands and moves on a street: buildings, trees, lamps, cars and people."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from thermal_search.demo.materials import (
    BARK,
    BRICK,
    CAR_BODY,
    CAR_GLASS,
    CLOTHES,
    DOOR,
    EXHAUST,
    FOLIAGE,
    HOOD,
    LIGHT,
    METAL,
    PANE,
    PLASTER,
    ROOF,
    SKIN,
    TIRE,
    UNDERBODY,
    Color,
    Material,
    Surface,
)
from thermal_search.demo.mesh import CIRCLE, Mesh
from thermal_search.demo.weather import Weather

Random = np.random.Generator

BODY = 33.0
"""The temperature of skin, in degrees Celsius."""

STRIDE = 4
"""Poses of a step."""


@dataclass
class SceneObject:
    """An object at its place in the first frame."""

    x: float
    """Meters to the right of the middle of the road."""

    z: float
    """Meters ahead."""

    meshes: Sequence[Mesh]
    """One, or those of a movement, frame after frame."""

    size: tuple[float, float, float]
    """Meters across, along and up, for its shadow."""

    speed: float = 0.0
    """Meters a frame ahead."""

    is_background: bool = False
    """Farther from the road than everything else."""

    lamp: float = 0.0
    """Brightness of the light that it throws onto the ground around it."""


PALETTE: Sequence[Color] = (
    (0.45, 0.05, 0.04), (0.05, 0.10, 0.40), (0.55, 0.55, 0.55), (0.03, 0.03, 0.035),
    (0.75, 0.74, 0.72), (0.10, 0.28, 0.12), (0.60, 0.45, 0.08), (0.25, 0.26, 0.28),
    (0.30, 0.16, 0.09), (0.12, 0.30, 0.42),
)  # fmt: skip
"""Of anything that people color: a wall may be as red as a car or a coat."""

ROOM_LIGHT = np.array((1.0, 0.68, 0.34))
ROOM_BRIGHTNESS = {"day": 0.0, "dusk": 0.6, "night": 0.14}
GLASS: Color = (0.05, 0.06, 0.08)
RUBBER: Color = (0.015, 0.015, 0.017)


def coating(random: Random) -> Color:
    chosen = PALETTE[int(random.integers(len(PALETTE)))]
    return _color(np.clip(np.array(chosen) * random.uniform(0.7, 1.3), 0.01, 0.85))


def building(
    random: Random, weather: Weather, x: float, z: float, length: float, *, is_house: bool
) -> SceneObject:
    """Its facade is at `x`, parallel to the road, and its near end at `z`."""
    side = 1 if x > 0 else -1
    storeys = int(random.integers(1, 3) if is_house else random.integers(2, 6))
    height, depth = 3.0 * storeys + 0.6, float(random.uniform(6, 9))
    material = BRICK if random.random() < 0.45 else PLASTER
    color: Color = (0.34, 0.15, 0.10) if material is BRICK else coating(random)
    if random.random() < 0.4:
        color = (0.55, 0.50, 0.42)
    mesh = Mesh()
    wall = Surface(material, color)
    facade = [(0, 0, 0), (0, height, 0), (0, height, length), (0, 0, length)]
    toward = (-side, 0, 0)
    front = mesh.add(facade, wall, facing=toward)
    outer = side * depth
    end = mesh.add(
        [(min(0, outer), 0, 0), (min(0, outer), height, 0), (max(0, outer), height, 0),
         (max(0, outer), 0, 0)], wall, facing=(0, 0, -1),
    )  # fmt: skip
    bright = 1.0 if weather.time == "day" else 0.25
    pane: Color = (0.10 * bright, 0.13 * bright, 0.17 * bright)
    for storey in range(storeys):
        low = 3.0 * storey + 1.0
        for start in np.arange(0.8, length - 1.4, 2.4):
            is_lit = weather.is_dark and random.random() < 0.4
            room = is_lit * ROOM_BRIGHTNESS[weather.time] * float(random.uniform(0.5, 1.2))
            surface = Surface(PANE, pane, heat=1.5 * is_lit, glow=_color(room * ROOM_LIGHT))
            corners = [(0, low, start), (0, low + 1.5, start), (0, low + 1.5, start + 1.2),
                       (0, low, start + 1.2)]  # fmt: skip
            if storey == 0 and start < 1:
                surface = Surface(DOOR, coating(random))
                corners = [(px, 0.1 if py == low else 2.3, pz) for px, py, pz in corners]
            mesh.add(corners, surface, facing=toward, on=front)
        for start in np.arange(1.2, depth - 1.6, 2.8):
            left, right = sorted((side * start, side * (start + 1.2)))
            corners = [(left, low, 0), (left, low + 1.5, 0), (right, low + 1.5, 0), (right, low, 0)]
            mesh.add(corners, Surface(PANE, pane), facing=(0, 0, -1), on=end)
    if is_house:
        ridge = height + float(random.uniform(2, 3.5))
        tiles = Surface(ROOF, (0.28, 0.10, 0.06) if random.random() < 0.6 else (0.07, 0.07, 0.08))
        middle = outer / 2
        eaves, start, end_z = side * -0.4, -0.3, length + 0.3
        tiling = [(eaves, height - 0.2, start), (middle, ridge, start),
                 (middle, ridge, end_z), (eaves, height - 0.2, end_z)]  # fmt: skip
        mesh.add(tiling, tiles, facing=(-side, 1, 0))
        gable = [(0, height, 0), (middle, ridge, 0), (outer, height, 0)]
        mesh.add(gable, wall)
    placed = SceneObject(x, z, [mesh], (depth, length, height), is_background=True)
    return placed


def tree(random: Random, weather: Weather, x: float, z: float, leaves: Color) -> SceneObject:
    mesh = Mesh()
    height, spread = float(random.uniform(4, 8)), float(random.uniform(1.3, 2.4))
    mesh.front(-0.16, 0, 0.16, 0.6 * height, Surface(BARK, (0.10, 0.07, 0.05)), z=0.1)
    for _ in range(9):
        angle, away = random.uniform(0, 2 * np.pi), spread * float(random.uniform(0.2, 0.75))
        middle_x, middle_y = away * np.cos(angle), 0.68 * height + 0.9 * away * np.sin(angle)
        # The crown is lighter above and where the sun comes from.
        shine = 0.75 + 0.25 * np.sin(angle) + 0.2 * np.cos(angle) * float(weather.sun[0])
        leaf = Surface(FOLIAGE, _color(shine * np.array(leaves)))
        size = float(random.uniform(0.9, 1.5)) * spread
        mesh.ellipse(middle_x, middle_y, size, 0.85 * size, leaf, z=-away / 50)
    return SceneObject(x, z, [mesh], (1.6 * spread, 1.6 * spread, height))


def lamp(weather: Weather, x: float, z: float) -> SceneObject:
    mesh = Mesh()
    side = -1.0 if x > 0 else 1.0
    post = Surface(METAL, (0.20, 0.21, 0.22))
    mesh.front(-0.08, 0, 0.08, 6, post)
    mesh.front(min(0, side * 1.4), 5.9, max(0, side * 1.4), 6.02, post)
    is_on = weather.is_dark
    head = Surface(
        LIGHT, (0.5, 0.5, 0.5), heat=22.0 * is_on, glow=(9, 6.5, 3.2) if is_on else (0, 0, 0)
    )
    mesh.front(side * 1.1 - 0.35, 5.75, side * 1.1 + 0.35, 5.95, head, z=-0.05)
    return SceneObject(x, z, [mesh], (0.2, 0.2, 6), lamp=float(is_on))


def sign(random: Random, weather: Weather, x: float, z: float) -> SceneObject:
    mesh = Mesh()
    mesh.front(-0.04, 0, 0.04, 2.6, Surface(METAL, (0.35, 0.35, 0.36)))
    red: Color = (0.60, 0.03, 0.03)
    mesh.ellipse(0, 2.5, 0.7, 0.7, Surface(METAL, red), z=-0.05)
    mesh.ellipse(0, 2.5, 0.45, 0.45, Surface(METAL, (0.8, 0.8, 0.8)), z=-0.1)
    return SceneObject(x, z, [mesh], (0.2, 0.1, 2.6))


PROFILES: dict[str, Sequence[tuple[float, float, str]]] = {
    "sedan": [(0, 0.32, "body"), (0, 0.95, "body"), (0.55, 1.0, "glass"), (1.15, 1.44, "body"),
              (2.3, 1.44, "glass"), (3.0, 0.98, "hood"), (4.2, 0.78, "body"), (4.3, 0.32, "")],
    "hatchback": [(0, 0.32, "body"), (0.05, 0.95, "glass"), (0.4, 1.5, "body"),
                  (2.1, 1.5, "glass"), (2.8, 1.0, "hood"), (3.7, 0.8, "body"), (3.8, 0.32, "")],
    "van": [(0, 0.35, "body"), (0.02, 1.15, "glass"), (0.12, 2.0, "body"), (3.6, 2.0, "glass"),
            (4.2, 1.15, "hood"), (4.8, 0.95, "body"), (4.9, 0.35, "")],
    "truck": [(0, 0.6, "body"), (0, 3.2, "body"), (5.4, 3.2, "glass"), (5.7, 2.0, "hood"),
              (6.6, 1.2, "body"), (6.6, 0.45, "")],
}  # fmt: skip
"""Side views from the rear to the front: meters along and up, and what follows that point."""

CABINS: dict[str, Sequence[tuple[float, float]]] = {
    "sedan": [(0.75, 1.02), (1.2, 1.38), (2.25, 1.38), (2.8, 1.02)],
    "hatchback": [(0.5, 1.02), (0.7, 1.42), (2.0, 1.42), (2.6, 1.02)],
    "van": [(2.6, 1.2), (2.6, 1.85), (3.5, 1.85), (3.95, 1.2)],
    "truck": [(5.45, 1.5), (5.45, 2.4), (5.6, 2.4), (5.75, 1.5)],
}
"""Side windows."""


def car(
    random: Random,
    weather: Weather,
    x: float,
    z: float,
    *,
    is_driven: bool,
    is_oncoming: bool,
    speed: float = 0.0,
) -> SceneObject:
    """An engine that has run warms the hood, tires, underbody and exhaust; a parked car is cold."""
    kind = str(random.choice(["sedan", "hatchback", "van", "truck"], p=[0.4, 0.35, 0.17, 0.08]))
    profile = PROFILES[kind]
    length, width = profile[-1][0], 2.3 if kind == "truck" else 1.76
    color = coating(random)
    warm = float(random.uniform(0.8, 1.1)) if is_driven else 0.0
    if not is_driven and random.random() < 0.2:
        warm = 0.5  # parked not long ago
    surfaces = {
        "body": Surface(CAR_BODY, color, heat=1.5 * warm),
        "hood": Surface(HOOD, color, heat=13 * warm),
        "glass": Surface(CAR_GLASS, GLASS, heat=2 * warm),
    }
    tire = Surface(TIRE, RUBBER, heat=11 * warm)
    half = width / 2
    mesh = Mesh()

    def place(along: float) -> float:
        return (length - along if is_oncoming else along) - length / 2

    faces: list[int] = []
    for (start, low, kind_after), (end, high, _) in pairwise(profile):
        a, b = place(start), place(end)
        corners = [(-half, low, a), (-half, high, b), (half, high, b), (half, low, a)]
        outward = (0, (low + high) / 2 - 0.7, (a + b) / 2)
        faces.append(mesh.add(corners, surfaces[kind_after], facing=outward))
    outline = [(place(along), up) for along, up, _ in profile]
    cabin = [(place(along), up) for along, up in CABINS[kind]]
    for side in (-1, 1):
        body = [(side * half, up, along) for along, up in outline]
        window = [(side * half, up, along) for along, up in cabin]
        outward = (side, 0, 0)
        flank = mesh.add(body, surfaces["body"], facing=outward)
        mesh.add(window, surfaces["glass"], facing=outward, on=flank)
        for axle in (0.19 * length, 0.80 * length):
            for radius, surface in (
                (0.34, tire),
                (0.17, Surface(METAL, (0.4, 0.4, 0.4), heat=6 * warm)),
            ):
                ring = [
                    (side * half, 0.34 + radius * s, place(axle) + radius * c) for c, s in CIRCLE
                ]
                mesh.add(ring, surface, facing=outward, on=flank)
    near = -length / 2
    shown = faces[-1] if is_oncoming else faces[0]
    below = Surface(UNDERBODY, (0.01, 0.01, 0.01), heat=12 * warm)
    low = profile[0][1]
    mesh.front(-half + 0.1, 0.12, half - 0.1, low, below, z=near + 0.02)
    for side in (-1, 1):
        mesh.front(*_box(side * (half - 0.24), side * half, 0.0, low + 0.05), tire, z=near + 0.01)
    is_lit = weather.is_dark and is_driven
    for side in (-1, 1):
        left, right = sorted((side * (half - 0.42), side * (half - 0.08)))
        if is_oncoming:
            glow: Color = (16, 15, 12) if is_lit else (0, 0, 0)
            light = Surface(LIGHT, (0.7, 0.7, 0.68), heat=6 * is_lit, glow=glow)
        else:
            glow = (2.2, 0.06, 0.04) if is_lit else (0, 0, 0)
            light = Surface(LIGHT, (0.40, 0.02, 0.02), heat=3 * is_lit, glow=glow)
        top = profile[-2][1] - 0.08 if is_oncoming else min(profile[1][1], 1.1) - 0.08
        corners = [
            (left, top - 0.2, near),
            (left, top, near),
            (right, top, near),
            (right, top - 0.2, near),
        ]
        mesh.add(corners, light, on=shown)
    plate = [(-0.26, 0.5, near), (-0.26, 0.62, near), (0.26, 0.62, near), (0.26, 0.5, near)]
    mesh.add(plate, Surface(LIGHT, (0.6, 0.6, 0.55)), on=shown)
    if is_oncoming:
        grille = [(-0.45, 0.38, near), (-0.45, 0.6, near), (0.45, 0.6, near), (0.45, 0.38, near)]
        mesh.add(grille, Surface(UNDERBODY, (0.02, 0.02, 0.02), heat=15 * warm), on=shown)
    elif warm:
        pipe = Surface(EXHAUST, (0.05, 0.05, 0.05), heat=25 * warm)
        mesh.ellipse(-half + 0.35, 0.3, 0.2, 0.18, pipe, z=near - 0.01)
    return SceneObject(x, z, [mesh], (width, length, profile[3][1]), speed=speed)


def _color(values: np.ndarray[Any, Any]) -> Color:
    red, green, blue = values.tolist()
    return red, green, blue


def _box(a: float, b: float, low: float, high: float) -> tuple[float, float, float, float]:
    return min(a, b), low, max(a, b), high


def person(random: Random, weather: Weather, x: float, z: float) -> SceneObject:
    """Blood warms the skin; clothes are between it and the air, whatever their color."""
    height = float(random.uniform(1.55, 1.9))
    cover = float(random.uniform(0.32, 0.5))
    warmth = max(BODY - weather.air, 2.0)

    def body(share: float, material: Material, color: Color) -> Surface:
        # The air's own temperature is already in the material's.
        return Surface(material, color, heat=share * warmth)

    coat = body(cover, CLOTHES, coating(random))
    legs = body(0.8 * cover, CLOTHES, coating(random))
    tone = float(random.uniform(0.25, 1.0))
    skin = body(0.88, SKIN, (0.50 * tone, 0.33 * tone, 0.25 * tone))
    hair = body(0.5, CLOTHES, (0.06, 0.04, 0.03))
    h = height
    meshes: list[Mesh] = []
    for pose in range(STRIDE):
        mesh = Mesh()
        swing = (0.16, 0.05, -0.16, -0.05)[pose]
        for side in (-1, 1):
            foot = side * swing
            mesh.add(
                [(side * 0.05 - 0.08, 0.5 * h, 0), (side * 0.05 + 0.08, 0.5 * h, 0),
                 (foot + 0.10, 0, 0), (foot - 0.07, 0, 0)], legs,
            )  # fmt: skip
        for side in (-1, 1):
            hand = side * 0.25 - side * swing * 0.6
            mesh.add(
                [(side * 0.18 - 0.06, 0.8 * h, 0), (side * 0.18 + 0.06, 0.8 * h, 0),
                 (hand + 0.05, 0.46 * h, 0), (hand - 0.05, 0.46 * h, 0)], coat,
            )  # fmt: skip
            mesh.ellipse(hand, 0.45 * h, 0.11, 0.13, skin)
        mesh.add(
            [(-0.15, 0.47 * h, 0), (-0.22, 0.82 * h, 0), (-0.1, 0.86 * h, 0), (0.1, 0.86 * h, 0),
             (0.22, 0.82 * h, 0), (0.15, 0.47 * h, 0)], coat,
        )  # fmt: skip
        mesh.ellipse(0, 0.95 * h, 0.19, 0.25, hair)
        mesh.ellipse(0, 0.925 * h, 0.17, 0.2, skin)
        meshes.append(mesh)
    speed = float(random.choice([-1, 1]) * random.uniform(0.03, 0.09))
    return SceneObject(x, z, meshes, (0.45, 0.3, height), speed=speed)
