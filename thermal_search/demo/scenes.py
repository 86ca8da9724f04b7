"""Road scenes by day and by night, drawn as RGB and thermal pairs in the FLIR ADAS v2 layout.

Thermal follows from the material and temperature of objects, never from their color: people are
warm in any clothes, a parked car is as cold as the air, a driven one has a hot hood and hot wheels,
glass reflects the cold sky, and houses are warm at night. Inverted gray is a poor prediction.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from thermal_search.demo.canvas import Canvas, Color, Material

RGB_SIZE = (288, 256)
THERMAL_SIZE = (160, 142)
"""Width and height in pixels; the same field of view."""

CAMERA_HEIGHT_M = 1.4
FOCAL = 0.9
"""Focal length as a fraction of the image's width."""

NEAREST_M, FARTHEST_M = 4.0, 70.0
METERS_PER_FRAME = 0.7


@dataclass(frozen=True)
class Weather:
    """Light, temperatures and surfaces of a drive. All temperatures here are in degrees Celsius."""

    is_night: bool
    air: float
    """Temperature of the air."""

    sky: Material
    road: Material
    verge: Material
    light: float

    @classmethod
    def draw(cls, random: np.random.Generator, *, is_night: bool) -> "Weather":
        air = float(random.uniform(2, 12) if is_night else random.uniform(10, 26))
        overcast = random.random() < 0.5
        sky_celsius = air - (8 if overcast else 30)
        gray = int(random.uniform(60, 200))  # asphalt or concrete, which the sun warms alike
        if is_night:
            sky = Material((18, 20, 34), sky_celsius, glows=True)
            road, verge = air + 4, air - 3
        else:
            blue = (205, 210, 215) if overcast else (120, 170, 230)
            sky = Material(blue, sky_celsius, glows=True)
            road, verge = air + (5 if overcast else 14), air - 1
        return cls(
            is_night=is_night,
            air=air,
            sky=sky,
            road=Material((gray, gray, gray + 6), road),
            verge=Material(_color(random, (70, 110, 50), 25), verge),
            light=0.28 if is_night else float(random.uniform(0.8, 1.0)),
        )


@dataclass(frozen=True)
class SceneObject:
    """An object on or beside the road, and how it is drawn."""

    x: float
    """Meters to the right of the camera's path."""

    z: float
    """Meters ahead in the first frame."""

    speed: float
    """Meters per frame by which it moves away from a camera at rest."""

    draw: Callable[[Canvas, "View"], None]


@dataclass(frozen=True)
class View:
    """Position and scale of an object in the image."""

    x: float
    ground: float
    scale: float
    """Pixels per meter."""

    def box(
        self, canvas: Canvas, left: float, low: float, right: float, high: float, material: Material
    ) -> None:
        """Draws a box in meters, relative to the object's center on the ground."""
        s = self.scale
        canvas.box(
            self.x + left * s,
            self.ground - high * s,
            self.x + right * s,
            self.ground - low * s,
            material,
        )

    def ellipse(
        self, canvas: Canvas, left: float, low: float, right: float, high: float, material: Material
    ) -> None:
        s = self.scale
        canvas.ellipse(
            self.x + left * s,
            self.ground - high * s,
            self.x + right * s,
            self.ground - low * s,
            material,
        )


def draw_recording(
    folder: Path,
    *,
    seed: int = 0,
    recordings: int = 8,
    frames: int = 24,
    stills: int = 24,
) -> None:
    """Draws `recordings` pairs of videos of `frames` frames, and `stills` unpaired images per kind.

    Every second recording is at night. The same seed draws the same images.
    """
    mapping: dict[str, str] = {}
    for number in range(recordings):
        random = np.random.default_rng([seed, number])
        drive = _Drive(random, is_night=number % 2 == 1)
        rgb_video, thermal_video = f"demoRgb{number:02}", f"demoThermal{number:02}"
        for frame in range(frames):
            rgb, thermal = drive.frame(frame)
            rgb_name = f"video-{rgb_video}-frame-{frame:06d}-r{number:02}{frame:04}.jpg"
            thermal_name = f"video-{thermal_video}-frame-{frame:06d}-t{number:02}{frame:04}.jpg"
            _save(rgb, folder / "video_rgb_test" / "data" / rgb_name)
            _save(thermal, folder / "video_thermal_test" / "data" / thermal_name)
            mapping[rgb_name] = thermal_name
    for split, count in (("train", stills), ("val", max(stills // 4, 1))):
        for kind in ("rgb", "thermal"):
            images = folder / f"images_{kind}_{split}" / "data"
            for number in range(count):
                random = np.random.default_rng([seed, 1, len(kind), len(split), number])
                drive = _Drive(random, is_night=number % 2 == 1)
                pair = drive.frame(0)
                name = f"video-still{kind}{split}{number:03}-frame-000000-s{number:04}.jpg"
                _save(pair[0 if kind == "rgb" else 1], images / name)
    (folder / "rgb_to_thermal_vid_map.json").write_text(json.dumps(mapping, indent=1) + "\n")


class _Drive:
    """One recording: weather, a street, and a camera that drives along it."""

    def __init__(self, random: np.random.Generator, *, is_night: bool) -> None:
        self.random = random
        self.weather = Weather.draw(random, is_night=is_night)
        self.horizon = float(random.uniform(0.42, 0.52))
        self.half_road = float(random.uniform(3.2, 5.0))
        weather = self.weather
        self.objects = [
            *(_building(random, weather, side) for side in (-1, 1) for _ in range(7)),
            *(_tree(random, weather, side) for side in (-1, 1) for _ in range(4)),
            *(_lamp(random, weather, side) for side in (-1, 1) for _ in range(2)),
            *(_car(random, weather, self.half_road, is_driven=n % 3 < 2) for n in range(6)),
            *(_person(random, weather, self.half_road) for _ in range(7)),
        ]

    def frame(self, number: int) -> tuple[Image.Image, Image.Image]:
        width, height = RGB_SIZE
        canvas = Canvas(width, height, light=self.weather.light)
        self._ground(canvas, number)
        located = [(self._distance(item, number), item) for item in self.objects]
        for z, item in sorted(located, key=lambda pair: -pair[0]):
            item.draw(canvas, self._view(item.x, z))
        span = (self.weather.air - 16, self.weather.air + 30)
        return canvas.photograph(self.random), canvas.thermogram(*THERMAL_SIZE, *span, self.random)

    def _distance(self, item: SceneObject, number: int) -> float:
        moved = item.z + (item.speed - METERS_PER_FRAME) * number
        return NEAREST_M + (moved - NEAREST_M) % (FARTHEST_M - NEAREST_M)

    def _view(self, x: float, z: float) -> View:
        width, height = RGB_SIZE
        scale = FOCAL * width / z
        return View(width / 2 + x * scale, self.horizon * height + CAMERA_HEIGHT_M * scale, scale)

    def _ground(self, canvas: Canvas, number: int) -> None:
        width, height = RGB_SIZE
        weather, horizon = self.weather, self.horizon * height
        canvas.box(0, 0, width, horizon, weather.sky)
        canvas.box(0, horizon, width, height, weather.verge)
        left, right = self._view(-self.half_road, 2.0), self._view(self.half_road, 2.0)
        vanishing = (width / 2, horizon)
        canvas.polygon([vanishing, (left.x, left.ground), (right.x, right.ground)], weather.road)
        marking = Material((235, 235, 225), weather.road.celsius - 2)
        for index in range(12):
            z = 2.5 + (index * 6 - METERS_PER_FRAME * number) % 66
            near, far = self._view(0, z), self._view(0, z + 2.5)
            canvas.polygon(
                [
                    (near.x - 0.08 * near.scale, near.ground),
                    (near.x + 0.08 * near.scale, near.ground),
                    (far.x + 0.08 * far.scale, far.ground),
                    (far.x - 0.08 * far.scale, far.ground),
                ],
                marking,
            )


def _building(random: np.random.Generator, weather: Weather, side: int) -> SceneObject:
    width, height = float(random.uniform(5, 10)), float(random.uniform(5, 14))
    sunlit = 0.0 if weather.is_night else float(random.uniform(-3, 9))
    wall = Material(_color(random, (150, 130, 115), 60), weather.air + 2 + sunlit)
    is_lit = weather.is_night and random.random() < 0.6
    # By day glass reflects the cold sky; at night a heated room shows through it.
    pane = Material(
        (250, 225, 150) if is_lit else (60, 75, 90),
        weather.air + (8 if weather.is_night else -7),
        glows=is_lit,
    )

    def draw(canvas: Canvas, view: View) -> None:
        view.box(canvas, -width / 2, 0, width / 2, height, wall)
        for sill in np.arange(1.2, height - 1.5, 2.8):
            for left in np.arange(-width / 2 + 0.8, width / 2 - 1.2, 2.2):
                view.box(canvas, left, sill, left + 1.1, sill + 1.4, pane)

    return SceneObject(side * float(random.uniform(11, 16)), _anywhere(random), 0.0, draw)


def _tree(random: np.random.Generator, weather: Weather, side: int) -> SceneObject:
    trunk = Material((80, 60, 45), weather.air)
    crown = Material(_color(random, (60, 100, 45), 30), weather.air - 1)
    radius = float(random.uniform(1.2, 2.2))

    def draw(canvas: Canvas, view: View) -> None:
        view.box(canvas, -0.18, 0, 0.18, 2.6, trunk)
        view.ellipse(canvas, -radius, 1.9, radius, 1.9 + 2 * radius, crown)

    return SceneObject(side * float(random.uniform(6.5, 9)), _anywhere(random), 0.0, draw)


def _lamp(random: np.random.Generator, weather: Weather, side: int) -> SceneObject:
    post = Material((95, 95, 100), weather.air)
    head = Material((255, 235, 180), weather.air + 24, glows=True)
    dark = Material((200, 200, 200), weather.air)

    def draw(canvas: Canvas, view: View) -> None:
        view.box(canvas, -0.08, 0, 0.08, 5.5, post)
        view.box(
            canvas,
            -0.6 * side - 0.3,
            5.4,
            -0.6 * side + 0.3,
            5.7,
            head if weather.is_night else dark,
        )

    return SceneObject(side * 5.8, _anywhere(random), 0.0, draw)


def _car(
    random: np.random.Generator, weather: Weather, half_road: float, *, is_driven: bool
) -> SceneObject:
    """Seen from the front in the other lane, from behind in ours; parked cars are at the curb."""
    oncoming = random.random() < 0.5
    air, night = weather.air, weather.is_night
    color = _color(random, (130, 130, 130), 120)
    body = Material(color, air + (0 if night else 4))
    glass = Material((40, 50, 60), air - 8)
    hood = Material(color, air + (20 if is_driven else 1))
    tire = Material((25, 25, 28), air + (17 if is_driven else 0))
    under = Material((20, 20, 22), air + (22 if is_driven else -1))
    if oncoming:
        lamps = Material(
            (255, 250, 220) if night and is_driven else (220, 220, 215),
            air + 6,
            glows=night and is_driven,
        )
    else:
        lamps = Material(
            (255, 40, 30) if night and is_driven else (150, 25, 20),
            air + 3,
            glows=night and is_driven,
        )

    def draw(canvas: Canvas, view: View) -> None:
        view.box(canvas, -0.7, 0.1, 0.7, 0.45, under)
        for side in (-1, 1):
            view.box(canvas, side * 0.72 - 0.14, 0, side * 0.72 + 0.14, 0.55, tire)
        view.box(canvas, -0.9, 0.35, 0.9, 0.95, body)
        view.box(canvas, -0.75, 0.9, 0.75, 1.45, body)
        view.box(canvas, -0.65, 0.97, 0.65, 1.38, glass)
        if oncoming:
            view.box(canvas, -0.62, 0.42, 0.62, 0.86, hood)
        elif is_driven:
            view.ellipse(canvas, -0.62, 0.18, -0.4, 0.38, Material((60, 60, 60), air + 38))
        for side in (-1, 1):
            view.box(canvas, side * 0.74 - 0.12, 0.6, side * 0.74 + 0.12, 0.78, lamps)

    if not is_driven:
        return SceneObject(
            (half_road - 0.6) * (-1 if oncoming else 1), _anywhere(random), 0.0, draw
        )
    lane = half_road * 0.48
    speed = float(random.uniform(-1.2, -0.4) if oncoming else random.uniform(0.5, 0.9))
    return SceneObject(-lane if oncoming else lane, _anywhere(random), speed, draw)


def _person(random: np.random.Generator, weather: Weather, half_road: float) -> SceneObject:
    coat = Material(_color(random, (120, 120, 120), 120), max(weather.air + 6, 23))
    legs = Material(_color(random, (70, 70, 90), 60), max(weather.air + 4, 21))
    skin = Material(_color(random, (190, 150, 120), 40), 33)
    height = float(random.uniform(1.55, 1.9))

    def draw(canvas: Canvas, view: View) -> None:
        for side in (-1, 1):
            view.box(canvas, side * 0.12 - 0.09, 0, side * 0.12 + 0.09, 0.48 * height, legs)
        view.ellipse(canvas, -0.28, 0.42 * height, 0.28, 0.88 * height, coat)
        view.ellipse(canvas, -0.13, 0.84 * height, 0.13, height, skin)

    beside = half_road + float(random.uniform(0.4, 2.0))
    x = (
        beside * float(random.choice([-1, 1]))
        if random.random() < 0.7
        else float(random.uniform(-half_road, half_road))
    )
    return SceneObject(x, _anywhere(random), float(random.uniform(-0.1, 0.1)), draw)


def _anywhere(random: np.random.Generator) -> float:
    return float(random.uniform(NEAREST_M + 1, FARTHEST_M))


def _color(random: np.random.Generator, middle: Color, spread: int) -> Color:
    red, green, blue = np.clip(np.array(middle) + random.uniform(-spread, spread, 3), 5, 250)
    return int(red), int(green), int(blue)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95)
