"""Writes the formats of an exported generator to a folder, each compared with the trained one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from thermal_search import generator
from thermal_search.architectures.translator import Translator
from thermal_search.choices import ExportFormat
from thermal_search.generator import WEIGHTS_FILE, FormatRecord, GeneratorConfig
from thermal_search.portable import programs
from thermal_search.portable.comparison import (
    MAX_DIFFERENCE,
    ComparisonImages,
    greatest_difference,
    require_equal,
)
from thermal_search.portable.model_card import LatentDescription
from thermal_search.portable.network import PortableGenerator
from thermal_search.portable.priors import prior_of
from thermal_search.storage import Location

PT2_FILE, ONNX_FILE = "generator.pt2", "generator.onnx"


@dataclass(frozen=True)
class WrittenFormats:
    records: dict[ExportFormat, FormatRecord]
    latent: LatentDescription


def write_formats(
    folder: Path,
    formats: Sequence[ExportFormat],
    trained: Translator,
    config: GeneratorConfig,
    images: ComparisonImages,
) -> WrittenFormats:
    """Writes the formats to an empty folder, reads each again and compares its images.

    The safetensors are always written, with `config`. Raises ExportMismatch if one differs.
    """
    network = PortableGenerator(trained)
    shapes = _input_shapes(network)
    records: dict[ExportFormat, FormatRecord] = {}

    def add(name: ExportFormat, file: str, difference: float, limit: float) -> None:
        require_equal(name, difference, limit)
        records[name] = FormatRecord(
            file=file,
            difference=difference,
            compared_on=images.source,
            inputs=shapes,
            size_multiple=network.size_multiple,
        )

    generator.save(Location.of(folder), config, trained.generator.state_dict())
    difference = greatest_difference(trained, generator.load(folder), images.rgb)
    add("safetensors", WEIGHTS_FILE, difference, 0.0)
    if {"pt2", "onnx"} & set(formats):
        program = programs.trace(network)
        multiple = network.size_multiple
        if "pt2" in formats:
            programs.save_pt2(program, folder / PT2_FILE)
            run = programs.load_pt2(folder / PT2_FILE)
            difference = greatest_difference(trained, run, images.rgb, size_multiple=multiple)
            add("pt2", PT2_FILE, difference, MAX_DIFFERENCE)
        if "onnx" in formats:
            programs.save_onnx(program, list(shapes), folder / ONNX_FILE)
            run = programs.load_onnx(folder / ONNX_FILE)
            difference = greatest_difference(trained, run, images.rgb, size_multiple=multiple)
            add("onnx", ONNX_FILE, difference, MAX_DIFFERENCE)
    latent = LatentDescription(prior_of(trained), network.latent_size, network.noise_size)
    return WrittenFormats(records, latent)


def _input_shapes(network: PortableGenerator) -> dict[str, list[int | str]]:
    sides: list[int | str] = (
        ["height", "width"] if network.size_multiple else [network.size, network.size]
    )
    shapes: dict[str, list[int | str]] = {"rgb": ["batch", 3, *sides]}
    if network.latent_size:
        shapes["z"] = ["batch", network.latent_size]
    if network.noise_size:
        shapes["noise"] = ["batch", network.noise_size]
    return shapes
