"""`thermal-search export`: writes the best generator of a search to a folder."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from thermal_search import checkpoint, generator
from thermal_search.architectures.translator import Translator
from thermal_search.errors import ExportMismatch, SearchError
from thermal_search.generator import CONFIG_FILE, GeneratorConfig
from thermal_search.storage import Location
from thermal_search.tuning.own_code import require_code
from thermal_search.tuning.record import SearchRecord, checkpoint_of
from thermal_search.tuning.summary import RetrainingRecord, TrialRecord


@dataclass(frozen=True)
class BestTrial:
    record: TrialRecord
    checkpoint: Location
    """Its generator.pt."""


def best_trial(output: Location | Path) -> BestTrial:
    """The retraining that won the final ranking, or without one the best trial.

    Raises SearchError if the record of the search is damaged, or no trial was evaluated yet.
    """
    search = SearchRecord.load(output)
    best = search[search.final_ranking.generator] if search.final_ranking else search.best
    if best is None or not best.history:
        raise SearchError(
            f"{output}: no trial has been evaluated yet, so there is no best generator. "
            "Let the search reach its first evaluation."
        )
    if digest := search.plan.own_architectures.get(best.architecture):
        require_code({best.architecture: digest})
    return BestTrial(best, search.output / checkpoint_of(best))


def export(output: Location | Path, destination: Location | Path | None = None) -> Location:
    """Writes the best generator of the search in `output` and checks it against the trained one.

    It is the moving average if the trial has one. Returns the folder. Raises ExportMismatch, and
    writes nothing, if the exported generator generates other images than the trained one.
    """
    best = best_trial(output)
    destination = Location.of(destination or Location.of(output) / "generator")
    if not _is_empty_or_export(destination):
        raise SearchError(
            f"{destination} must be empty or an earlier export: choose another folder."
        )
    description, weights = checkpoint.load_generator(best.checkpoint)
    trained = generator.assemble(
        description, weights, best.checkpoint, remedy=checkpoint.GENERATOR_REMEDY
    )
    record = best.record
    config = GeneratorConfig(
        **dict(description),
        trial=record.id,
        objective=record.objective,
        test_metrics=record.test_metrics if isinstance(record, RetrainingRecord) else {},
    )
    with tempfile.TemporaryDirectory() as folder:
        copy = Location.of(folder)
        generator.save(copy, config, weights)
        _require_equal_images(trained, generator.load(copy))
    generator.save(destination, config, weights)
    return destination


class _AnyVersion(BaseModel):
    """What the config.json of every version of an exported generator has."""

    version: int
    architecture: str
    parameters: dict[str, Any]
    size: int
    trial: str


def _is_empty_or_export(folder: Location) -> bool:
    """Whether writing a generator to the folder replaces nothing but an earlier one."""
    if not folder.list():
        return not folder.is_file()
    try:
        _AnyVersion.model_validate_json((folder / CONFIG_FILE).read_bytes())
    except (OSError, ValidationError):
        return False
    return True


@torch.inference_mode()
def _require_equal_images(trained: Translator, exported: Translator) -> None:
    random = torch.Generator().manual_seed(0)
    size = trained.config.size
    rgb = torch.rand(2, 3, size, size, generator=random) * 2 - 1
    generated: list[Tensor] = []
    for translator in (trained, exported):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            z = translator.draw_latent(2, torch.Generator().manual_seed(0))
            generated.append(translator.translate(rgb, z))
    difference = (generated[0] - generated[1]).abs().max().item()
    if not difference == 0:
        raise ExportMismatch(
            f"The exported generator differs from the trained one by {difference:g} (of 2), so it "
            "was not written: report this as a bug."
        )
