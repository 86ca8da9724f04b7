"""`thermal-search export`: writes the best generator of a search, or another one, to a folder."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError

from thermal_search import checkpoint, generator
from thermal_search.choices import ExportFormat
from thermal_search.documents import MAX_BYTES
from thermal_search.errors import SearchError, SettingsError
from thermal_search.generator import CONFIG_FILE, WEIGHTS_FILE, GeneratorConfig
from thermal_search.portable import model_card, programs
from thermal_search.portable.comparison import comparison_images
from thermal_search.portable.files import ONNX_FILE, PT2_FILE, write_formats
from thermal_search.storage import Location
from thermal_search.training.trial_plan import grid_name
from thermal_search.tuning.own_code import require_code
from thermal_search.tuning.record import SearchRecord, checkpoint_of
from thermal_search.tuning.summary import RetrainingRecord, TrialRecord

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
DEFAULT_FORMATS: tuple[ExportFormat, ...] = ("safetensors",)


@dataclass(frozen=True)
class BestTrial:
    record: TrialRecord
    checkpoint: Location
    """Its generator.pt."""


def best_trial(output: Location | Path) -> BestTrial:
    """The retraining that won the final ranking, or without one the best trial.

    Raises SearchError if the record of the search is damaged, or no trial was evaluated yet.
    """
    return best_of(SearchRecord.load(output))


def best_of(search: SearchRecord) -> BestTrial:
    best = search[search.final_ranking.generator] if search.final_ranking else search.best
    if best is None or not best.history:
        raise SearchError(
            f"{search.output}: no trial has been evaluated yet, so there is no best generator. "
            "Let the search reach its first evaluation."
        )
    if digest := search.plan.own_architectures.get(best.architecture):
        require_code({best.architecture: digest})
    return BestTrial(best, search.output / checkpoint_of(best))


def _trial_of(search: SearchRecord, id: str) -> BestTrial:
    """A trial or retraining by its id; SearchError if there is none, or it has no generator yet."""
    evaluated = {
        trial.id: trial
        for trial in (*search.trials.values(), *search.retrainings.values())
        if trial.history
    }
    if id not in evaluated:
        known = ", ".join(evaluated) or "none"
        raise SearchError(
            f"--trial {id} must be a trial of {search.output} that has been evaluated: {known}."
        )
    return BestTrial(evaluated[id], search.output / checkpoint_of(evaluated[id]))


def parse_formats(text: str) -> tuple[ExportFormat, ...]:
    """Formats separated by commas; SettingsError if one is unknown."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if not names or unknown:
        wrong = unknown[0] if names else "empty"
        raise SettingsError(
            f"--format must be {', '.join(FORMATS)}, or several of these separated by commas, but "
            f"is {wrong:.60}."
        )
    return tuple(known for known in FORMATS if known in names)


def export(
    output: Location | Path,
    destination: Location | Path | None = None,
    *,
    trial: str | None = None,
    formats: Sequence[ExportFormat] = DEFAULT_FORMATS,
) -> Location:
    """Writes a generator of the search in `output`, with a model card, and returns the folder.

    It is the moving average if the trial has one. The safetensors are always written, the other
    formats if asked for. Each is read again and compared with the trained generator on validation
    frames of the dataset, or on random images if it is out of reach: `load_config(folder).formats`
    says what differed.

    Args:
        destination: empty or an earlier export; by default the folder `generator` in `output`.
        trial: the id of a trial or retraining; by default the best one.

    Raises ExportMismatch, and writes nothing, if an exported generator generates other images than
    the trained one; SearchError if the search or the destination is not what it must be.
    """
    search = SearchRecord.load(output)
    chosen = _trial_of(search, trial) if trial else best_of(search)
    destination = Location.of(destination or search.output / "generator")
    earlier = _earlier_files(destination)
    if "onnx" in formats:
        programs.require_onnx()
    description, weights = checkpoint.load_generator(chosen.checkpoint)
    trained = generator.assemble(
        description, weights, chosen.checkpoint, remedy=checkpoint.GENERATOR_REMEDY
    )
    record = chosen.record
    config = GeneratorConfig(
        **dict(description),
        trial=record.id,
        objective=record.objective,
        test_metrics=record.test_metrics if isinstance(record, RetrainingRecord) else {},
    )
    images = comparison_images(search.plan.data, search.plan.dataset_digest, description.size)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = write_formats(folder, formats, trained, config, images)
        config = config.model_copy(update={"formats": written.records})
        grid = chosen.checkpoint.parent / grid_name(description.images)
        if has_images := grid.is_file():
            (folder / model_card.IMAGES_FILE).write_bytes(grid.read_bytes())
        card = model_card.model_card(search, config, written.latent, has_images=has_images)
        (folder / model_card.FILE).write_text(card)
        config.write(Location.of(folder / CONFIG_FILE))
        _publish(folder, config, destination, earlier)
    return destination


def describe_export(folder: Location) -> str:
    """What an export has written, and how far each format is from the trained generator."""
    config = generator.load_config(folder)
    lines = [f"The generator of {config.trial} ({config.architecture}) is in {folder}."]
    for record in config.formats.values():
        difference = (
            "the same images as the trained one"
            if record.difference == 0
            else f"images that differ by at most {record.difference:.2g} (of 2)"
        )
        lines.append(f"{record.file} generates {difference}, on {record.compared_on}.")
    return "\n".join(lines)


class _AnyVersion(BaseModel):
    """What the config.json of every version of an exported generator has."""

    version: int
    architecture: str
    parameters: dict[str, Any]
    size: int
    trial: str
    formats: dict[str, dict[str, Any]] = Field(default_factory=dict[str, dict[str, Any]])


def _earlier_files(folder: Location) -> set[str]:
    """The names of an earlier export's files in a folder; none if the folder is empty.

    Raises SearchError if the folder holds anything else that an export would replace.
    """
    if not _is_empty_or_export(folder):
        raise SearchError(f"{folder} must be empty or an earlier export: choose another folder.")
    present = {entry.name for entry in folder.list()}
    if not present:
        return set()
    config = _AnyVersion.model_validate_json((folder / CONFIG_FILE).read_bytes(MAX_BYTES))
    known = {CONFIG_FILE, WEIGHTS_FILE} | {str(f.get("file")) for f in config.formats.values()}
    if model_card.FILE in present:
        card = folder / model_card.FILE
        if card.is_file() and card.read_bytes().startswith(model_card.MARK.encode()):
            known |= {model_card.FILE, model_card.IMAGES_FILE}
    names = {WEIGHTS_FILE, PT2_FILE, ONNX_FILE, model_card.FILE, model_card.IMAGES_FILE}
    if foreign := sorted((present & names) - known):
        raise SearchError(
            f"{folder / foreign[0]} exists and was not written by export: move it elsewhere, or "
            "choose another folder."
        )
    return present & names & known


def _is_empty_or_export(folder: Location) -> bool:
    """Whether writing a generator to the folder replaces nothing but an earlier one."""
    if not folder.list():
        return not folder.is_file()
    try:
        _AnyVersion.model_validate_json((folder / CONFIG_FILE).read_bytes(MAX_BYTES))
    except (OSError, ValidationError):
        return False
    return True


def _publish(
    folder: Path, config: GeneratorConfig, destination: Location, earlier: set[str]
) -> None:
    """Copies a complete export, so that no reader gets a mixture of two.

    While files are replaced, config.json has version 0: a reader refuses it, and an export that was
    killed then can be repeated.
    """
    names = [path.name for path in sorted(folder.iterdir()) if path.name != CONFIG_FILE]
    own = {name: {"file": name} for name in {*names, *earlier}}
    unfinished = config.model_dump(mode="json") | {"version": 0, "formats": own}
    with contextlib.ExitStack() as outputs:
        # All content is written before the first file is replaced; config.json, entered first, is
        # replaced last.
        for name in (CONFIG_FILE, *names):
            file = outputs.enter_context((destination / name).open_output())
            with (folder / name).open("rb") as content:
                shutil.copyfileobj(content, file)
        (destination / CONFIG_FILE).write_text(json.dumps(unfinished))
        for name in earlier - set(names):
            (destination / name).delete()
