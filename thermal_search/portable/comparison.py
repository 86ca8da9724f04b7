"""Whether an exported generator generates what the trained one does, on real images."""

from dataclasses import dataclass

import torch

from thermal_search.architectures.translator import Translator
from thermal_search.data.manifest import read_manifest
from thermal_search.data.parquet import read_pairs
from thermal_search.errors import ExportMismatch, ThermalSearchError
from thermal_search.images import Rgb, to_network_range
from thermal_search.portable.network import generate_with_inputs
from thermal_search.portable.programs import Run
from thermal_search.storage import Location

COUNT = 8
"""Images that are compared."""

MAX_DIFFERENCE = 1e-3
"""Largest difference in network range, -1 .. 1, of float32: an eighth of a gray level."""


@dataclass(frozen=True)
class ComparisonImages:
    """RGB images in network range, and what they are."""

    rgb: Rgb
    source: str
    """Such as `8 validation frames`."""


def comparison_images(data: Location, digest: str, size: int) -> ComparisonImages:
    """Evenly spaced validation frames of a dataset; random images, with the reason, if it is out of
    reach or has another digest."""
    try:
        manifest = read_manifest(data)
        if manifest.digest != digest:
            return _random_images(size, "its dataset has changed since the search")
        frames, _ = read_pairs(manifest, "val")
    except (ThermalSearchError, OSError):
        return _random_images(size, "its dataset is out of reach")
    count = min(COUNT, len(frames))
    rgb = to_network_range(frames.take([index * len(frames) // count for index in range(count)]))
    return ComparisonImages(rgb, f"{count} validation frames")


def _random_images(size: int, reason: str) -> ComparisonImages:
    random = torch.Generator().manual_seed(0)
    rgb = torch.rand(COUNT, 3, size, size, generator=random) * 2 - 1
    return ComparisonImages(rgb, f"{COUNT} random images ({reason})")


def greatest_difference(
    translator: Translator, exported: Run | Translator, rgb: Rgb, *, size_multiple: int = 0
) -> float:
    """The greatest absolute difference between trained and exported generator, in network range.

    Compares several images at once and a single one; with a `size_multiple` also images of another
    size and shape. Raises ExportMismatch if a result is not finite or differs in its shape.
    """
    batches = [rgb, rgb[:1]]
    if size_multiple:
        wide = torch.cat([rgb[:1], rgb[-1:]], dim=3)
        batches.append(wide[..., : rgb.shape[3] + size_multiple])
    greatest = 0.0
    for seed, batch in enumerate(batches):
        thermal, inputs = generate_with_inputs(translator, batch, seed)
        if isinstance(exported, Translator):
            generated, _ = generate_with_inputs(exported, batch, seed)
        else:
            generated = exported(inputs)
        if generated.shape != thermal.shape or not generated.isfinite().all():
            raise ExportMismatch(
                f"The exported generator returns images of shape {list(generated.shape)} that are "
                f"not the trained one's, {list(thermal.shape)}, or not finite, so it was not "
                "written: report this as a bug."
            )
        greatest = max(greatest, (generated - thermal).abs().max().item())
    return greatest


def require_equal(name: str, difference: float, limit: float) -> None:
    """ExportMismatch if a format's difference is above the limit."""
    if not difference <= limit:
        raise ExportMismatch(
            f"The generator as {name} differs from the trained one by {difference:g} (of 2), more "
            f"than {limit:g}, so nothing was written: report this as a bug."
        )
