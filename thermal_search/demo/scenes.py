"""Road scenes by day, at dusk and at night, drawn as RGB and thermal pairs.

Heat follows from what a thing is, never from its color: people are warm in any clothes, a parked
car is about as cold as the air and a driven one has a hot hood and hot tires, glass and bare metal
reflect the cold sky, asphalt keeps the sun's warmth, and a shadow is colder than the ground around
it. Every recording is a drive of its own: another street, other weather, another camera.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thermal_search.demo.canvas import (
    FARTHEST_GROUND_M,
    GROUND,
    LIT,
    SUPERSAMPLING,
    Array,
    Camera,
    Canvas,
    noise_tile,
    render,
    surface_table,
    thermogram,
)
from thermal_search.demo.materials import HILL, Color, Surface
from thermal_search.demo.mesh import Mesh, Shadows, World
from thermal_search.demo.objects import (
    SceneObject,
    building,
    car,
    lamp,
    person,
    sign,
    tree,
)
from thermal_search.demo.weather import TIMES, Time, Weather

ASPECT = 9 / 8
"""Width of an image divided by its height, as of FLIR ADAS v2."""

HEIGHT = 256
THERMAL_SCALE = 0.625
"""Pixels of the thermal image for one of the RGB image, in both directions."""

NEAREST_M, FARTHEST_M, SKYLINE_M = 2.0, 75.0, 230.0
METERS_PER_FRAME = 0.8

BRIGHTNESS: dict[Time, float] = {"day": 1.0, "dusk": 0.8, "night": 0.35}
"""What an RGB camera's exposure aims at."""


@dataclass(frozen=True)
class Scene:
    """One frame of a drive."""

    rgb: Image.Image
    thermal: Image.Image
    """Of the same field of view; 0 .. 255."""

    materials: np.ndarray[Any, np.dtype[np.uint8]]
    """[height, width] as of `rgb`: numbers of `materials.MATERIALS`."""


def draw_recording(
    folder: Path,
    *,
    seed: int = 0,
    recordings: int = 8,
    frames: int = 24,
    stills: int = 24,
    height: int = HEIGHT,
) -> None:
    """Draws a source folder for `process.py`, in the layout of FLIR ADAS v2.

    `recordings` pairs of videos of `frames` frames, and `stills` unpaired images of each kind. RGB
    images are `height` pixels high. The same arguments draw the same images.
    """
    mapping: dict[str, str] = {}
    for number in range(recordings):
        rgb_video, thermal_video = f"demoRgb{number:02}", f"demoThermal{number:02}"
        for frame, scene in enumerate(draw_drive(seed, number, frames, height=height)):
            rgb_name = f"video-{rgb_video}-frame-{frame:06d}-r{number:02}{frame:04}.jpg"
            thermal_name = f"video-{thermal_video}-frame-{frame:06d}-t{number:02}{frame:04}.jpg"
            _save(scene.rgb, folder / "video_rgb_test" / "data" / rgb_name)
            _save(scene.thermal, folder / "video_thermal_test" / "data" / thermal_name)
            mapping[rgb_name] = thermal_name
    for split, count in (("train", stills), ("val", max(stills // 4, 1))):
        for kind in ("rgb", "thermal"):
            images = folder / f"images_{kind}_{split}" / "data"
            for number in range(count):
                # Streets of their own: unpaired images share no scene.
                drive = 1000 * (1 + len(kind) + 20 * len(split)) + number
                (scene,) = draw_drive(seed, drive, 1, height=height)
                name = f"video-still{kind}{split}{number:03}-frame-000000-s{number:04}.jpg"
                _save(scene.rgb if kind == "rgb" else scene.thermal, images / name)
    (folder / "rgb_to_thermal_vid_map.json").write_text(json.dumps(mapping, indent=1) + "\n")


def draw_drive(seed: int, number: int, frames: int, *, height: int = HEIGHT) -> Iterator[Scene]:
    """The frames of one recording; recordings of other numbers show other streets and weather."""
    random = np.random.default_rng([seed, number])
    drive = _Drive(random, TIMES[number % len(TIMES)])
    for frame in range(frames):
        yield drive.frame(frame, height, random)


class _Drive:
    """One recording: weather, a street, and a camera that drives along it."""

    def __init__(self, random: np.random.Generator, time: Time) -> None:
        self.weather = Weather.draw(random, time)
        self.noise = noise_tile(random)
        self.start = float(random.uniform(0, 500))
        self.focal = float(random.uniform(0.78, 1.0))
        self.horizon = float(random.uniform(0.44, 0.53))
        self.camera_height = float(random.uniform(1.25, 1.7))
        self.bend = float(random.uniform(-1, 1) * random.choice([0.0, 0.0012]))
        self.exposure = BRIGHTNESS[time] * float(random.uniform(0.85, 1.2))
        # Gain control that is slow: a frame with a warm engine is no darker than the one before.
        coldest = self.weather.air - float(random.uniform(5.5, 7))
        self.gain = coldest, coldest + float(random.uniform(16, 19))
        self.sidewalk = float(random.uniform(1.6, 3.0))
        self.speed = METERS_PER_FRAME * float(random.uniform(0.5, 1.4))
        self.kind = str(random.choice(["city", "suburb", "country"], p=[0.45, 0.35, 0.2]))
        parking = 2.2 if self.kind != "country" else 0.0
        self.half_road = parking + float(random.uniform(3.0, 3.8))
        self.lane = 0.5 * (self.half_road - parking)
        asphalt, slab = random.uniform(0.05, 0.16), random.uniform(0.18, 0.34)
        season = [(0.06, 0.13, 0.03), (0.10, 0.16, 0.04), (0.22, 0.15, 0.05)][random.integers(3)]
        self.leaves: Color = season
        red, green, blue = (float(c * random.uniform(0.8, 1.5)) for c in season)
        colors: list[Color] = [
            (0, 0, 0), (red, green, blue), (slab, slab, 0.95 * slab),
            (asphalt, asphalt, asphalt), (0.65, 0.65, 0.6),
        ]  # fmt: skip
        surfaces = [Surface(m, color) for m, color in zip(GROUND, colors, strict=True)]
        self.ground = surface_table(surfaces, self.weather, np.ones(len(GROUND), np.float32))
        self.ground[:, LIT] = np.sqrt(self.weather.sun[1])
        objects = [self._skyline(random), *self._objects(random)]
        self.z, self.speeds, self.lengths = (
            np.array(values, np.float32)
            for values in (
                [item.z for item in objects],
                [item.speed for item in objects],
                [item.size[1] for item in objects],
            )
        )
        x = [item.x for item in objects]
        self.world = World(
            [item.meshes for item in objects],
            x,
            [item.is_background for item in objects],
            self.weather,
        )
        self.shadows = Shadows(
            np.array(x, np.float32), np.array([item.size for item in objects]), self.weather
        )
        self.lamps = [number for number, item in enumerate(objects) if item.lamp]

    def frame(self, number: int, height: int, random: np.random.Generator) -> Scene:
        width = round(ASPECT * height)
        moved = self.start + self.speed * number
        camera = Camera(
            width=width,
            height=height,
            focal=self.focal,
            horizon=self.horizon + 0.004 * float(random.normal()),
            yaw=0.006 * float(random.normal()),
            x=self.lane * (1 + 0.05 * np.sin(number / 5)),
            y=self.camera_height,
            z=moved,
            bend=self.bend,
        )
        canvas = Canvas(camera, self.weather, self.ground, self._ground(camera))
        z = self._positions(number)
        canvas.lamps = [(float(self.world.x[n]), float(z[n])) for n in self.lamps]
        self.shadows.throw(canvas, z)
        self.world.draw_faces(canvas, z, number)
        rendering = render(canvas, self.noise, random, exposure=self.exposure)
        size = round(THERMAL_SCALE * width), round(THERMAL_SCALE * height)
        thermal = thermogram(rendering.celsius, size, self.gain, random)
        return Scene(Image.fromarray(rendering.rgb), thermal, rendering.materials)

    def _positions(self, number: int) -> Array:
        """Meters ahead of the street's beginning; what is passed comes again far ahead."""
        moved = self.start + self.speed * number
        nearest = moved + NEAREST_M - self.lengths
        span = FARTHEST_M + self.lengths
        positions = nearest + (self.start + self.z + self.speeds * number - nearest) % span
        positions[0] = moved + SKYLINE_M
        return positions.astype(np.float32)

    def _ground(self, camera: Camera) -> np.ndarray[Any, np.dtype[np.int32]]:
        """The number of the ground's surface [height, width]: 0 for the sky."""
        s = SUPERSAMPLING
        center_x, center_y = camera.center
        y = np.arange(s * camera.height, dtype=np.float32)[:, None] + 0.5
        x = np.arange(s * camera.width, dtype=np.float32)[None] + 0.5
        ahead = np.minimum(
            camera.y * camera.focal_y / np.maximum(y - center_y, 0.25), FARTHEST_GROUND_M
        )
        across = (x - center_x) * ahead / camera.focal_x - camera.bend * ahead**2 + camera.x
        aside = np.abs(across)
        numbers = np.full(across.shape, 1, np.int32)
        if self.kind != "country":
            numbers[aside < self.half_road + self.sidewalk] = 2
        numbers[aside < self.half_road] = 3
        is_dash = (ahead + camera.z) % 6 < 2.6
        is_edge = np.abs(aside - 2 * self.lane - 0.1) < 0.06
        numbers[((aside < 0.07) & is_dash) | is_edge] = 4
        numbers[np.broadcast_to(y < center_y, numbers.shape)] = 0
        return numbers

    def _objects(self, random: np.random.Generator) -> Iterator[SceneObject]:
        weather, curb = self.weather, self.half_road
        beyond = curb + (self.sidewalk if self.kind != "country" else 1.0)
        for side in (-1, 1):
            z = float(random.uniform(0, 6))
            while z < FARTHEST_M:
                length = float(random.uniform(7, 13))
                gap = {
                    "city": 0.0,
                    "suburb": random.uniform(3, 9),
                    "country": random.uniform(25, 60),
                }
                back = {
                    "city": 0.2,
                    "suburb": random.uniform(3, 6),
                    "country": random.uniform(6, 14),
                }
                x = side * (beyond + float(back[self.kind]))
                yield building(random, weather, x, z, length, is_house=self.kind != "city")
                z += length + float(gap[self.kind])
            for _ in range({"city": 2, "suburb": 5, "country": 9}[self.kind]):
                away = {"city": -0.7, "suburb": 1.2, "country": random.uniform(0.5, 9)}[self.kind]
                yield tree(
                    random, weather, side * (beyond + float(away)), _anywhere(random), self.leaves
                )
            if self.kind != "country":
                first = float(random.uniform(0, 25))
                for z in np.arange(first, FARTHEST_M, 26):
                    yield lamp(weather, side * (curb + 0.5), float(z))
            yield sign(random, weather, side * (curb + 0.6), _anywhere(random))
            for _ in range({"city": 4, "suburb": 2, "country": 0}[self.kind]):
                x = side * (curb - 1.0)
                yield car(
                    random, weather, x, _anywhere(random), is_driven=False, is_oncoming=side < 0
                )
            for _ in range({"city": 4, "suburb": 2, "country": 1}[self.kind]):
                x = side * (curb + float(random.uniform(0.3, max(self.sidewalk - 0.4, 0.6))))
                yield person(random, weather, x, _anywhere(random))
        for _ in range(int(random.integers(1, 4))):
            speed = -float(random.uniform(0.6, 1.3))
            yield car(
                random,
                weather,
                -self.lane,
                _anywhere(random),
                is_driven=True,
                is_oncoming=True,
                speed=speed,
            )
        # One drives ahead, about as fast as the camera.
        speed = self.speed * float(random.uniform(0.97, 1.04))
        yield car(
            random,
            weather,
            self.lane,
            float(random.uniform(10, 30)),
            is_driven=True,
            is_oncoming=False,
            speed=speed,
        )
        for _ in range(int(random.integers(0, 3))):
            x = float(random.uniform(-curb, curb))
            yield person(random, weather, x, _anywhere(random))

    def _skyline(self, random: np.random.Generator) -> SceneObject:
        """Hills or roofs far away, with haze before them."""
        mesh = Mesh()
        steps = np.linspace(-260, 260, 40)
        heights = np.abs(np.cumsum(random.normal(0, 2.2, 40))) + random.uniform(3, 9)
        if self.kind == "city":
            heights = np.repeat(random.uniform(8, 30, 20), 2)
            steps = np.repeat(np.linspace(-260, 260, 21), 2)[1:-1]
        top = [(float(x), float(h), 0.0) for x, h in zip(steps, heights, strict=True)]
        color: Color = (0.14, 0.14, 0.15) if self.kind == "city" else self.leaves
        mesh.add([(-260, -1, 0), *top, (260, -1, 0)], Surface(HILL, color))
        return SceneObject(0.0, 0.0, [mesh], (0, 0, 0), is_background=True)


def _anywhere(random: np.random.Generator) -> float:
    return float(NEAREST_M + 2 + (FARTHEST_M - NEAREST_M - 2) * random.random() ** 1.4)


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=95, subsampling=0)
