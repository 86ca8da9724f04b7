"""Two images drawn as one: what a color camera sees, and how warm it is."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Color = tuple[int, int, int]

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Material:
    """What a surface shows to either camera."""

    color: Color
    celsius: float
    glows: bool = False
    """Shines by itself: night does not darken it."""


class Canvas:
    """Draws each shape into an RGB image and into a map of temperatures, in degrees Celsius."""

    def __init__(self, width: int, height: int, *, light: float) -> None:
        self.width, self.height, self.light = width, height, light
        size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        self.rgb = Image.new("RGB", size)
        self.heat = Image.new("F", size)
        self.draw_rgb, self.draw_heat = ImageDraw.Draw(self.rgb), ImageDraw.Draw(self.heat)

    def polygon(self, points: list[Point], material: Material) -> None:
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self.draw_rgb.polygon(scaled, fill=self._lit(material))
        self.draw_heat.polygon(scaled, fill=material.celsius)

    def box(self, left: float, top: float, right: float, bottom: float, material: Material) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], material)

    def ellipse(
        self, left: float, top: float, right: float, bottom: float, material: Material
    ) -> None:
        corners = [left * SUPERSAMPLING, top * SUPERSAMPLING]
        corners += [max(left, right) * SUPERSAMPLING, max(top, bottom) * SUPERSAMPLING]
        self.draw_rgb.ellipse(corners, fill=self._lit(material))
        self.draw_heat.ellipse(corners, fill=material.celsius)

    def photograph(self, random: np.random.Generator) -> Image.Image:
        """The RGB image, with the noise of a camera that strains in the dark."""
        image = self.rgb.resize((self.width, self.height), Image.Resampling.BOX)
        noise = random.normal(0, 3 if self.light > 0.5 else 6, (self.height, self.width, 3))
        return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))

    def thermogram(
        self, width: int, height: int, coldest: float, hottest: float, random: np.random.Generator
    ) -> Image.Image:
        """The thermal image: `coldest` .. `hottest` become 0 .. 255, with blur and noise."""
        heat = self.heat.resize((width, height), Image.Resampling.BOX)
        levels = (np.asarray(heat) - coldest) / (hottest - coldest) * 255
        levels += random.normal(0, 2.5, levels.shape)
        image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
        return image.filter(ImageFilter.GaussianBlur(0.6))

    def _lit(self, material: Material) -> Color:
        if material.glows:
            return material.color
        red, green, blue = (round(value * self.light) for value in material.color)
        return red, green, blue
