"""The table of architectures: one file a paper, one line here."""

from collections.abc import Mapping
from dataclasses import fields

from thermal_search.architectures.cyclegan import CycleGAN
from thermal_search.architectures.pix2pix import Pix2Pix
from thermal_search.architectures.translator import Translator
from thermal_search.architectures.wgan import WGAN

ARCHITECTURES: dict[str, type[Translator]] = {
    "cyclegan": CycleGAN,
    "pix2pix": Pix2Pix,
    "wgan": WGAN,
}


def build(name: str, size: int, parameters: Mapping[str, object]) -> Translator:
    """A translator of size x size pixels, with the published value for what is not given.

    Raises ValueError for names or sizes that do not exist.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"Unknown architecture {name!r}. Available: {', '.join(sorted(ARCHITECTURES))}."
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
