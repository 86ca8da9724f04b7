"""Draws an RGB image and the temperatures of the same scene together."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Color = tuple[int, int, int]

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Material:
    """How a surface appears in RGB and in thermal."""

    color: Color
    celsius: float
    glows: bool = False
    """Whether it emits light, so that night does not darken it."""


class Canvas:
    """Draws each shape into an RGB image and into a map of temperatures, in degrees Celsius."""

    def __init__(self, width: int, height: int, *, light: float) -> None:
        self.width, self.height, self.light = width, height, light
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self.rgb = Image.new("RGB", size)
        self.temperatures = Image.new("F", size)
        self.draw_rgb = ImageDraw.Draw(self.rgb)
        self.draw_temperatures = ImageDraw.Draw(self.temperatures)

    def polygon(self, points: list[Point], material: Material) -> None:
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self.draw_rgb.polygon(scaled, fill=self._illuminated(material))
        self.draw_temperatures.polygon(scaled, fill=material.celsius)

    def box(self, left: float, top: float, right: float, bottom: float, material: Material) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], material)

    def ellipse(
        self, left: float, top: float, right: float, bottom: float, material: Material
    ) -> None:
        corners = [left * SUPERSAMPLING, top * SUPERSAMPLING]
        corners += [max(left, right) * SUPERSAMPLING, max(top, bottom) * SUPERSAMPLING]
        self.draw_rgb.ellipse(corners, fill=self._illuminated(material))
        self.draw_temperatures.ellipse(corners, fill=material.celsius)

    def photograph(self, random: np.random.Generator) -> Image.Image:
        """The RGB image, with noise that is stronger in the dark."""
        image = self.rgb.resize((self.width, self.height), Image.Resampling.BOX)
        noise = random.normal(0, 3 if self.light > 0.5 else 6, (self.height, self.width, 3))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))

    def thermogram(
        self, width: int, height: int, coldest: float, hottest: float, random: np.random.Generator
    ) -> Image.Image:
        """The thermal image: `coldest` .. `hottest` map to 0 .. 255, with blur and noise."""
        celsius = self.temperatures.resize((width, height), Image.Resampling.BOX)
        levels = (np.asarray(celsius) - coldest) / (hottest - coldest) * 255
        levels += random.normal(0, 2.5, levels.shape)
        image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
        return image.filter(ImageFilter.GaussianBlur(0.6))

    def _illuminated(self, material: Material) -> Color:
        if material.glows:
            return material.color
        red, green, blue = (round(value * self.light) for value in material.color)
        return red, green, blue
