"""Whether the metrics of a generator on a dataset compare with those of its search."""

from pathlib import Path

from thermal_search.data.manifest import Manifest
from thermal_search.errors import SearchError
from thermal_search.generator import GeneratorConfig
from thermal_search.images import Temperatures
from thermal_search.storage import Location


def require_equal_pixels(
    model: Location | Path, config: GeneratorConfig, manifest: Manifest
) -> None:
    """SearchError if pixels of the generator's images have another meaning than the dataset's."""
    generated, found = _meaning(config.temperatures), _meaning(manifest.temperatures)
    if generated != found:
        raise SearchError(
            f"{model} generates {generated}, but {manifest.folder} has {found}, so that equal "
            "pixels have other meanings: prepare it with the --thermal and --celsius of the "
            "training data."
        )
    if config.size != manifest.size:
        raise SearchError(
            f"{model} generates images of {config.size} pixels a side, but {manifest.folder} has "
            f"{manifest.size}: prepare it with --size {config.size}."
        )


def note_other_alignment(config: GeneratorConfig, manifest: Manifest) -> list[str]:
    """A sentence if the pairs are aligned in another way than those of the training; else empty.

    It is no error: a dataset of other cameras may need another alignment, or none.
    """
    trained, found = config.alignment, manifest.pair_alignment
    if trained.compares_with(found):
        return []
    return [
        f"The generator was trained on {trained}, but {manifest.folder.name} has {found}: they "
        "show other crops of a scene, so its metrics, and what it beats, do not compare with those "
        "of its search unless you prepare the dataset as the training data."
    ]


def _meaning(temperatures: Temperatures | None) -> str:
    """What the pixels of thermal images mean, in words."""
    if temperatures is None:
        return "8-bit thermal images"
    return f"temperatures from {temperatures.low:g} to {temperatures.high:g} degrees Celsius"
