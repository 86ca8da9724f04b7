"""An exported generator: a folder to keep, to share and to load anywhere.

MODEL/generator.safetensors   weights only: loading them never runs code
MODEL/config.json             how to build the generator around them, and how it was evaluated
MODEL/generator.pt2, .onnx    the same generator for programs without this package, if asked for
MODEL/README.md               the model card
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load as parse_weights
from safetensors.torch import load_file as map_weights
from safetensors.torch import save as serialize_weights
from torch import Tensor

from thermal_search.architectures.translator import Translator
from thermal_search.checkpoint import GeneratorDescription
from thermal_search.choices import ExportFormat
from thermal_search.documents import Document, Section
from thermal_search.errors import SearchError
from thermal_search.generator_shape import build_for, first_difference
from thermal_search.storage import Location

WEIGHTS_FILE, CONFIG_FILE = "generator.safetensors", "config.json"


class FormatRecord(Section):
    """One file of an exported generator, and how it was compared with the trained generator."""

    file: str
    difference: float
    """The greatest absolute difference of its images from the trained generator's, in -1 .. 1."""

    compared_on: str
    """The images that both generated from, such as `8 validation frames`."""

    inputs: dict[str, list[int | str]]
    """The shape of each float32 input, in the order of a call; a name stands for any length."""

    size_multiple: int
    """Height and width of `rgb` may be any multiples of this; 0: both must be the config's size."""


class GeneratorConfig(GeneratorDescription, Document):
    """MODEL/config.json. Since version 5 StyleGAN adds its biases after the blur."""

    REMEDY: ClassVar[str] = "export it again"

    version: Literal[5] = 5
    trial: str
    """The id of the trial or retraining that trained it."""

    objective: dict[str, float]
    """What the search minimized, by key: its mean over the trial's last evaluations."""

    test_metrics: dict[str, float]
    """Measured once on the test split; empty for a trial that is no retraining of a finalist."""

    formats: dict[ExportFormat, FormatRecord] = Field(
        default_factory=dict[ExportFormat, FormatRecord]
    )
    """The files beside this one, by format."""


def save(model: Location, config: GeneratorConfig, weights: Mapping[str, Tensor]) -> None:
    """Writes a generator to a folder, over an earlier one if there is any."""
    contiguous = {name: value.contiguous() for name, value in weights.items()}
    content = serialize_weights(contiguous)
    # Without its config a folder holds no generator: no reader gets a mixture of two.
    (model / CONFIG_FILE).delete()
    (model / WEIGHTS_FILE).write_bytes(content)
    config.write(model / CONFIG_FILE)


@dataclass(frozen=True)
class Weights:
    """The weights of an exported generator."""

    tensors: dict[str, Tensor]
    digest: str
    """SHA-256 of their file, in hexadecimal digits."""


def load(model: Location | Path) -> Translator:
    """An exported generator in evaluation mode, on the CPU.

    Raises SearchError with one sentence if the folder holds none, or if it is of another version,
    damaged, or inconsistent.
    """
    model = Location.of(model)
    config = load_config(model)
    weights = _load_tensors(model)
    return assemble(config, weights, model / CONFIG_FILE, remedy=config.REMEDY)


def load_weights(model: Location | Path) -> Weights:
    """The weights of an exported generator. Raises SearchError as `load` does."""
    model = Location.of(model)
    tensors = _load_tensors(model)
    with (model / WEIGHTS_FILE).open_input() as file:
        digest = hashlib.file_digest(file, "sha256")  # pyright: ignore[reportArgumentType]
    return Weights(tensors, digest.hexdigest())


def _load_tensors(model: Location) -> dict[str, Tensor]:
    try:
        return _read_tensors(model / WEIGHTS_FILE)
    except (FileNotFoundError, NotADirectoryError):
        raise _absent(model) from None
    except (OSError, SafetensorError) as error:
        raise SearchError(
            f"{model / WEIGHTS_FILE} cannot be read ({_one_line(error)}): {GeneratorConfig.REMEDY}."
        ) from None


def load_config(model: Location | Path) -> GeneratorConfig:
    """The config of an exported generator. Raises SearchError as `load` does."""
    model = Location.of(model)
    try:
        return GeneratorConfig.read(model / CONFIG_FILE)
    except FileNotFoundError:
        raise _absent(model) from None


def assemble(
    description: GeneratorDescription,
    weights: Mapping[str, Tensor],
    source: Location,
    *,
    remedy: str,
) -> Translator:
    """A translator whose generator has these weights, in evaluation mode, on the CPU.

    Raises SearchError if the description cannot be built or the weights do not fit it: the sentence
    names `source` and ends with `remedy`.
    """
    try:
        translator = build_for(description, weights)
    except Exception as error:  # any, from an architecture with such parameters
        raise SearchError(
            f"{source} describes a generator that cannot be built ({_one_line(error)}): {remedy}."
        ) from None
    if fault := first_difference(translator.generator.state_dict(), weights):
        raise SearchError(
            f"{source} does not describe the weights that came with it ({fault}): {remedy}."
        )
    for name, value in weights.items():
        if not value.isfinite().all():
            raise SearchError(
                f"The weights that came with {source} must be finite numbers, but some of {name} "
                f"are not: {remedy}."
            )
    translator.generator.load_state_dict(weights)
    return translator.eval()


def _read_tensors(path: Location) -> dict[str, Tensor]:
    with path.open_input() as file:  # refuses what is no regular file
        if path.local:
            # Mapped, not read: a file may be larger than the memory.
            return map_weights(path.local)
        return parse_weights(file.read())


def _absent(model: Location) -> SearchError:
    return SearchError(
        f"{model} holds no exported generator ({CONFIG_FILE} and {WEIGHTS_FILE}): pass the folder "
        "that thermal-search export wrote."
    )


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: " + " ".join(str(error).split())[:200].rstrip(".")
