"""The table of architectures: one file per paper, one line here."""

from collections.abc import Mapping
from dataclasses import fields

from thermal_search.architectures.biggan import BigGAN
from thermal_search.architectures.cgan import CGAN
from thermal_search.architectures.cyclegan import CycleGAN
from thermal_search.architectures.dcgan import DCGAN
from thermal_search.architectures.gan import GAN
from thermal_search.architectures.improved_gan import ImprovedGAN
from thermal_search.architectures.pix2pix import Pix2Pix
from thermal_search.architectures.progressive_gan import ProgressiveGAN
from thermal_search.architectures.stylegan import StyleGAN
from thermal_search.architectures.thermalgan import ThermalGAN
from thermal_search.architectures.translator import Translator
from thermal_search.architectures.unit import UNIT
from thermal_search.architectures.wgan import WGAN
from thermal_search.architectures.wgan_gp import WGANGP
from thermal_search.errors import known_names

ARCHITECTURES: dict[str, type[Translator]] = {
    "biggan": BigGAN,
    "cgan": CGAN,
    "cyclegan": CycleGAN,
    "dcgan": DCGAN,
    "gan": GAN,
    "improved_gan": ImprovedGAN,
    "pix2pix": Pix2Pix,
    "progressive_gan": ProgressiveGAN,
    "stylegan": StyleGAN,
    "thermalgan": ThermalGAN,
    "unit": UNIT,
    "wgan": WGAN,
    "wgan_gp": WGANGP,
}


def build(name: str, size: int, parameters: Mapping[str, object]) -> Translator:
    """The architecture `name` for size x size pixels; published values for missing parameters.

    Raises ValueError for an unknown name or parameter, or for a size it does not support.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"Unknown architecture {name!r}. {known_names(name, sorted(ARCHITECTURES))} One of "
            "your own needs its file: pass --architecture-file FILE.py."
        )
    if size < 32 or size & (size - 1):
        raise ValueError(f"size must be a power of two from 32, but got {size}.")
    architecture = ARCHITECTURES[name]
    known = {field.name for field in fields(architecture.Config)} - {"size"}
    if unknown := sorted(set(parameters) - known):
        raise ValueError(
            f"Unknown parameters of {name}: {', '.join(unknown)}. "
            f"Available: {', '.join(sorted(known))}."
        )
    return architecture(architecture.Config(size=size, **parameters))  # pyright: ignore - each Config checks its own
