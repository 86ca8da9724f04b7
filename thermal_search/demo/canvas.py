"""Draws surfaces into one map, from which an RGB and a thermal image of the scene are computed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from thermal_search.demo.materials import (
    ASPHALT,
    CONCRETE,
    GRASS,
    INDEX,
    MARKING,
    MATERIALS,
    SKY,
    Surface,
)
from thermal_search.demo.weather import CLOUD, HORIZON, ZENITH, Weather

Array = np.ndarray[Any, np.dtype[np.floating[Any]]]

Numbers = np.ndarray[Any, np.dtype[np.int32]]
Pixels = np.ndarray[Any, np.dtype[np.uint8]]

SUPERSAMPLING = 2
FARTHEST_GROUND_M = 400.0
THERMAL_VISIBILITY_M = 700.0
SHADOW_COOLING = 0.6
MAX_GAIN = 5.0
NOISE_CELLS, TEXELS = 128, 4
"""The noise repeats after so many cells, each of so many numbers a side."""

FIELDS = 17
COLOR, GLOW, PLACE = slice(0, 3), slice(3, 6), slice(13, 17)
CELSIUS, EMISSIVITY, GRAIN, WARMTH, LIT, MATERIAL, CELLS, DISTANCE, ANCHOR_X, ANCHOR_Y, METERS = (
    range(6, FIELDS)
)
"""Columns of a drawn surface: what its material and the weather say of it, then its place: meters
ahead, the pixel that its pattern begins at, and meters per pixel."""

LAMPLIGHT = np.array((1.0, 0.72, 0.36), np.float32)

GROUND = (SKY, GRASS, CONCRETE, ASPHALT, MARKING)
"""The first surfaces of every scene."""


def surface_table(surfaces: Sequence[Surface], weather: Weather, lit: Array) -> Array:
    """The columns of surfaces, each with the fraction of the sun's light that falls on it."""
    table = np.zeros((len(surfaces), FIELDS), np.float32)
    table[:, COLOR] = [surface.color for surface in surfaces]
    table[:, GLOW] = [surface.glow for surface in surfaces]
    number = np.array([INDEX[surface.material.name] for surface in surfaces])
    heat = np.array([surface.heat for surface in surfaces], np.float32)
    of_material = np.array(
        [
            [m.emissivity, m.grain, m.warmth_grain, 1 / m.grain_m,
             weather.celsius(m, 0.0), weather.celsius(m, 1.0)]
            for m in MATERIALS
        ], np.float32,
    )[number]  # fmt: skip
    emissivity, grain, warmth, cells, shaded, sunlit = of_material.T
    table[:, EMISSIVITY], table[:, GRAIN], table[:, WARMTH] = emissivity, grain, warmth
    table[:, CELSIUS] = shaded + (sunlit - shaded) * lit + heat
    table[:, LIT], table[:, MATERIAL], table[:, CELLS] = lit, number, cells
    return table


def noise_tile(random: np.random.Generator) -> Array:
    """Noise of several sizes from -1 to 1, which continues over its edges."""
    side = NOISE_CELLS * TEXELS
    tile = np.zeros((side, side), np.float32)
    for cells, weight in ((4, 1.0), (16, 0.8), (64, 0.8), (NOISE_CELLS, 0.9)):
        coarse = np.pad(random.normal(0, weight, (cells, cells)), 1, mode="wrap")
        scale = side // cells
        image = Image.fromarray(coarse.astype(np.float32)).resize(
            ((cells + 2) * scale, (cells + 2) * scale), Image.Resampling.BICUBIC
        )
        tile += np.asarray(image)[scale:-scale, scale:-scale]
    return np.clip(tile / (2.2 * tile.std()), -1, 1).astype(np.float32)


def _look_up(noise: Array, along: Array, across: Array) -> Array:
    """The noise at these places, in cells."""
    mask = NOISE_CELLS * TEXELS - 1
    row = (along * TEXELS).astype(np.int32) & mask
    return noise.ravel()[row * (mask + 1) + ((across * TEXELS).astype(np.int32) & mask)]


@dataclass(frozen=True)
class Camera:
    """Where the camera is, in meters, and how it sees."""

    width: int
    height: int
    focal: float
    """As a fraction of the width."""

    horizon: float
    """As a fraction of the height."""

    yaw: float
    """Shift of the image to the left, as a fraction of the width."""

    x: float
    y: float
    z: float
    bend: float
    """Meters by which the road leaves its direction 1 m ahead; it grows with the square."""

    @property
    def focal_x(self) -> float:
        return self.focal * self.width * SUPERSAMPLING

    @property
    def focal_y(self) -> float:
        # The field of view has an aspect of 9 : 8, whatever the shape of the image.
        return self.focal * 1.125 * self.height * SUPERSAMPLING

    @property
    def center(self) -> tuple[float, float]:
        scaled = SUPERSAMPLING
        return (0.5 - self.yaw) * self.width * scaled, self.horizon * self.height * scaled

    def project(self, points: Array) -> Array:
        """Pixels of points [n, 3] (to the right, up, ahead), all in front of the camera."""
        center_x, center_y = self.center
        ahead = points[:, 2] - self.z
        x = points[:, 0] - self.x + self.bend * ahead**2
        return np.stack(
            [center_x + self.focal_x * x / ahead,
             center_y - self.focal_y * (points[:, 1] - self.y) / ahead], axis=1,
        )  # fmt: skip


class Canvas:
    """Every pixel holds the number of the surface that is drawn on it."""

    def __init__(self, camera: Camera, weather: Weather, ground: Array, numbers: Numbers) -> None:
        """`ground` are the columns of GROUND, `numbers` the ground's surfaces by pixel."""
        self.camera, self.weather = camera, weather
        self.labels = Image.fromarray(numbers)
        self.size = self.labels.size
        self.draw = ImageDraw.Draw(self.labels)
        self.shade = Image.new("L", self.size)
        self.draw_shade = ImageDraw.Draw(self.shade)
        self.lamps: list[tuple[float, float]] = []
        """Places [x, z] on the ground that lamps shine on."""

        self.table = ground

    def draw_faces(self, polygons: list[list[float]], rows: Array) -> None:
        """Draws polygons (pixels, x and y in turn), one over the other, with their columns."""
        for number, polygon in enumerate(polygons, start=len(self.table)):
            if polygon:
                self.draw.polygon(polygon, fill=number)
        self.table = np.concatenate([self.table, rows])

    def darken(self, polygon: list[float]) -> None:
        """Throws a shadow onto the ground."""
        if polygon:
            self.draw_shade.polygon(polygon, fill=255)


@dataclass(frozen=True)
class Rendering:
    """An image of a scene in both spectra."""

    rgb: Pixels
    """[height, width, 3]."""

    celsius: Array
    """Apparent temperatures [height, width], in degrees Celsius."""

    materials: Pixels
    """The material [height, width] at the center of each pixel, by its number in MATERIALS."""


def render(
    canvas: Canvas, noise: Array, random: np.random.Generator, *, exposure: float
) -> Rendering:
    """Computes both images from what is drawn."""
    camera, weather = canvas.camera, canvas.weather
    labels = np.asarray(canvas.labels)
    columns = np.ascontiguousarray(canvas.table.T)

    def of(column: int) -> Array:
        return columns[column].take(labels)

    height, width = labels.shape
    center_x, center_y = camera.center
    x = np.arange(width, dtype=np.float32)[None] + np.float32(0.5 - center_x)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5 - center_y)
    is_ground = (labels > 0) & (labels < len(GROUND))
    ground_z = (camera.y * camera.focal_y / np.maximum(y, 0.25)).astype(np.float32)
    distance = np.where(is_ground, np.minimum(ground_z, FARTHEST_GROUND_M), of(DISTANCE))
    aside = x * distance * np.float32(1 / camera.focal_x)
    bent = aside - np.float32(camera.bend) * distance**2 + np.float32(camera.x)
    meters = of(METERS)
    across = np.where(is_ground, bent, (x - of(ANCHOR_X)) * meters)
    along = np.where(is_ground, distance + np.float32(camera.z), (y - of(ANCHOR_Y)) * meters)
    cells = of(CELLS)
    # Farther away a pixel holds more than one cell.
    pattern = _look_up(noise, along * cells, across * cells)
    pattern /= np.maximum(1, distance * cells * np.float32(1.5 / camera.focal_y))
    shade = np.asarray(canvas.shade, dtype=np.float32) * np.float32(1 / 255) * is_ground

    horizon = max(int(center_y) + 1, 1)
    sky_celsius, sky_light = _sky(camera, weather, noise, x, y[:horizon])
    is_sky = labels[:horizon] == 0

    sunlit = of(LIT) * (1 - shade)
    softened = 1 - np.float32(0.3) * shade
    lamps = _lamps(canvas, aside, bent, distance, y) if weather.is_dark else None
    texture = 1 + of(GRAIN) * pattern
    clear = np.exp(distance * np.float32(-1 / weather.visibility))
    haze = HORIZON[weather.time] * (1 - 0.4 * weather.clouds)
    wet = is_ground & (labels > 1) if weather.is_raining else None
    light = np.empty((height, width, 3), np.float32)
    for channel in range(3):
        received = weather.diffuse[channel] * softened + weather.sunlight[channel] * sunlit
        if lamps is not None:
            received += lamps[0] + lamps[1] * LAMPLIGHT[channel]
        seen = columns[channel].take(labels) * texture * received + of(3 + channel)
        seen = seen * clear + np.float32(haze[channel]) * (1 - clear)
        seen[:horizon] = np.where(is_sky, sky_light[..., channel], seen[:horizon])
        light[..., channel] = seen if wet is None else _mirrored(seen, wet, pattern, horizon)

    celsius = of(CELSIUS) + of(WARMTH) * pattern
    if weather.insolation:
        sun = np.array([material.sun for material in GROUND], np.float32)
        # A shadow moves: a part of what is in it now was in the sun before.
        celsius -= SHADOW_COOLING * weather.insolation * shade * sun[labels * is_ground]
    emissivity = of(EMISSIVITY) - 0.08 * (weather.is_raining * is_ground)
    celsius = emissivity * celsius + (1 - emissivity) * np.float32(weather.sky)
    through = np.exp(distance * np.float32(-1 / THERMAL_VISIBILITY_M))
    celsius = celsius * through + np.float32(weather.air) * (1 - through)
    celsius[:horizon] = np.where(is_sky, sky_celsius, celsius[:horizon])

    half = slice(SUPERSAMPLING // 2, None, SUPERSAMPLING)
    return Rendering(
        rgb=_photograph(_reduced(light), random, exposure),
        celsius=_reduced(celsius[..., None])[..., 0],
        materials=columns[MATERIAL][labels[half, half]].astype(np.uint8),
    )


def thermogram(
    celsius: Array, size: tuple[int, int], gain: tuple[float, float], random: np.random.Generator
) -> Image.Image:
    """The thermal image of apparent temperatures, at `size` (width, height).

    `gain` are the temperatures that become 0 and 255. Blur is the lens's, noise the detector's.
    """
    width, height = size
    image = Image.fromarray(celsius.astype(np.float32)).resize(size, Image.Resampling.BOX)
    levels = _blurred(np.asarray(image), 0.35 + height / 640)
    levels = levels + random.normal(0, 0.12, levels.shape)
    levels = levels + random.normal(0, 0.05, (1, width))  # columns share an amplifier
    coldest, hottest = gain
    pixels = np.clip((levels - coldest) / (hottest - coldest) * 255, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def _sky(camera: Camera, weather: Weather, noise: Array, x: Array, y: Array) -> tuple[Array, Array]:
    """The sky by pixel: apparent temperatures [h, w], and light [h, w, 3]."""
    up = np.maximum(-y, 0) * np.float32(1 / camera.focal_y)  # the tangent of the elevation
    height = 1 - np.exp(-2.2 * up)
    nearness = 1 / (up + np.float32(0.12))
    cells = _look_up(
        noise,
        np.broadcast_to(5 * nearness + np.float32(camera.z / 80), (len(y), x.size)),
        x * nearness * np.float32(3 / camera.focal_x) + 400,
    )
    cover = np.clip((cells + np.float32(2.2 * weather.clouds - 0.9)) * 2, 0, 1)
    cover *= weather.clouds > 0
    gradient = HORIZON[weather.time] * (1 - height[..., None])
    gradient = gradient + ZENITH[weather.time] * height[..., None]
    cloud = CLOUD[weather.time] * np.float32(0.6 if weather.is_raining else 1)
    cloud = cloud * (np.float32(0.85) + np.float32(0.2) * cells[..., None])
    light = gradient + (cloud - gradient) * cover[..., None]
    # Near the horizon one looks through more air, which is as warm as here.
    celsius = weather.air - (26 - 20 * cover) * height
    return celsius.astype(np.float32), light


def _lamps(
    canvas: Canvas, aside: Array, across: Array, distance: Array, y: Array
) -> tuple[Array, Array]:
    """The light of the own car's lamps (a cone below the horizon), and that of street lamps."""
    camera = canvas.camera
    cone = np.exp(-((aside / (np.float32(0.22) * distance + np.float32(0.7))) ** 2))
    cone *= np.exp(np.maximum(-y, 0) * np.float32(-20 / camera.focal_y))
    headlights = 45 * cone / (distance + 7) ** 2 + np.float32(0.006)
    pools = np.zeros_like(distance)
    ahead = distance + np.float32(camera.z)
    for x, z in canvas.lamps:
        away = (across - np.float32(x)) ** 2 + (ahead - np.float32(z)) ** 2
        pools += np.float32(0.16) / (1 + away * np.float32(1 / 14)) ** 2
    return headlights, pools


def _mirrored(light: Array, wet: Any, pattern: Array, horizon: int) -> Array:
    """A wet road mirrors what stands on it."""
    rows = np.clip(2 * horizon - np.arange(len(light)), 0, len(light) - 1)
    share = (np.float32(0.24) + np.float32(0.15) * pattern) * wet
    return light + share * (light[rows] - light)


def _photograph(light: Array, random: np.random.Generator, exposure: float) -> Pixels:
    """Light as a camera's RGB image: halos, exposure, noise of the light and of the sensor."""
    bright = np.clip(light - 1.2, 0, 4)
    if bright.max() > 0:
        light = light + 0.35 * np.maximum(_halo(bright), 0)
    gain = np.float32(min(0.30 * exposure / max(float(light.mean()), 1e-6), MAX_GAIN))
    exposed = np.minimum(light * gain, 1.6)
    exposed = exposed / (1 + 0.25 * exposed)  # the shoulder of the response
    grain = np.sqrt(exposed * gain * 4e-5 + (gain * 8e-4) ** 2)
    exposed += grain * random.standard_normal(light.shape, np.float32)
    return (np.clip(exposed, 0, 1) ** np.float32(1 / 2.2) * 255).astype(np.uint8)


def _blurred(values: Array, sigma: float) -> Array:
    """Values [h, w] after a Gaussian blur; the edges are repeated."""
    reach = int(3 * sigma + 0.5) or 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (0, 1):
        margin = [(reach, reach) if axis == side else (0, 0) for side in (0, 1)]
        padded = np.pad(values, margin, mode="edge")
        size = values.shape[axis]
        values = sum(  # pyright: ignore[reportAssignmentType]
            weight * padded.take(range(start, start + size), axis)
            for start, weight in enumerate(weights)
        )
    return values


def _halo(light: Array) -> Array:
    """Light [h, w, 3] that the lens spreads widely."""
    height, width, channels = light.shape
    small = max(width // 20, 4), max(height // 20, 4)
    spread = [
        Image.fromarray(np.ascontiguousarray(light[..., channel], dtype=np.float32))
        .resize(small, Image.Resampling.BOX)
        .resize((width, height), Image.Resampling.BICUBIC)
        for channel in range(channels)
    ]
    return np.stack([np.asarray(channel) for channel in spread], axis=-1)


def _reduced(values: Array) -> Array:
    """Means over blocks of SUPERSAMPLING pixels a side."""
    s = SUPERSAMPLING
    height, width, channels = values.shape
    return values.reshape(height // s, s, width // s, s, channels).mean((1, 3))
