"""From the best trial of a search to a generator one can carry away.

MODEL/generator.safetensors   weights only: loading it never runs code
MODEL/config.json             what to build around them, and what they scored
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save

from thermal_search import architectures, checkpoint
from thermal_search.architectures.translator import Translator
from thermal_search.errors import ExportMismatch, SearchError
from thermal_search.images import Temperatures
from thermal_search.storage import Location
from thermal_search.tuning.summary import FILE, RetrainingRecord, Summary, TrialRecord

WEIGHTS, CONFIG = "generator.safetensors", "config.json"
FORMAT = 1


@dataclass(frozen=True)
class Best:
    """The best generator of a search: of the winner of the final ranking, or else of the best
    trial."""

    trial: TrialRecord
    checkpoint: Location


def best_of(output: Location | Path) -> Best:
    """Reads OUTPUT/summary.json; SearchError if there is no evaluated trial yet."""
    output = Location.of(output)
    try:
        summary = Summary.read(output / FILE)
    except FileNotFoundError:
        raise SearchError(
            f"{output} holds no search ({FILE} is missing): pass the --output folder of one."
        ) from None
    final, best = summary.final_ranking, summary.best
    id = final.generator if final else best
    trials = {trial.id: trial for trial in (*summary.trials, *summary.retrainings)}
    if id is None:
        raise SearchError(
            f"{output}: no trial has been evaluated yet, so there is no best generator. "
            "Let the search reach its first evaluation."
        )
    if id not in trials or trials[id].checkpoint is None:
        raise SearchError(f"{output / FILE} is damaged (it has no checkpoint of {id!r}).")
    return Best(trials[id], output / str(trials[id].checkpoint))


def export(output: Location | Path, destination: Location | Path | None = None) -> Location:
    """Writes the best generator of the search in `output`, and checks it against the trained one.

    Where the trial kept a moving average, it is the average that was judged and is exported.
    Returns the folder; raises ExportMismatch, and leaves nothing, where the copy paints otherwise.
    """
    best = best_of(output)
    destination = Location.of(destination or Location.of(output) / "generator")
    if destination.list() and not (destination / CONFIG).exists():
        raise SearchError(
            f"{destination} must be empty or an earlier export: choose another folder."
        )
    state = _load_best(best.checkpoint)
    trained = _build(state)
    trained.generator.load_state_dict(state["generator"])
    config = {
        "format": FORMAT,
        "architecture": state["architecture"],
        "parameters": state["parameters"],
        "size": state["size"],
        "temperatures": state["temperatures"],
        "trial": best.trial.id,
        "images": state["images"],
        "metrics": state["metrics"],
        "objective": best.trial.objective,
        "protocol": state["protocol"],
        "test_metrics": best.trial.test_metrics if isinstance(best.trial, RetrainingRecord) else {},
    }
    with tempfile.TemporaryDirectory() as checked:
        written = Location.of(checked)
        weights = {name: value.contiguous() for name, value in state["generator"].items()}
        (written / WEIGHTS).write_bytes(save(weights))
        (written / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        _compare(trained, load(written))
        # An older export is none while its weights are replaced: no reader sees a mixture.
        (destination / CONFIG).delete()
        for name in (WEIGHTS, CONFIG):
            (destination / name).write_bytes((written / name).read_bytes())
    return destination


def load(model: Location | Path) -> Translator:
    """An exported generator, ready to translate; SearchError where the folder holds none."""
    model = Location.of(model)
    try:
        config = json.loads((model / CONFIG).read_text())
        weights = load_weights((model / WEIGHTS).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise SearchError(
            f"{model} holds no exported generator ({CONFIG} and {WEIGHTS}): pass the folder that "
            "thermal-search export wrote."
        ) from None
    except (ValueError, SafetensorError) as error:
        raise SearchError(f"{model} cannot be read: {error}. Export it again.") from None
    if config.get("format") != FORMAT:
        raise SearchError(
            f"{model} has format {config.get('format')}, but this version reads {FORMAT}: export "
            "it again."
        )
    translator = _build(config)
    try:
        translator.generator.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[0]
        raise SearchError(f"{model}: {WEIGHTS} does not fit {CONFIG} ({first})") from None
    return translator


def load_temperatures(model: Location | Path) -> Temperatures | None:
    """What an exported generator's images are in degrees; None where it paints grey levels."""
    try:
        content = json.loads((Location.of(model) / CONFIG).read_text())["temperatures"]
        return None if content is None else Temperatures(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{model} cannot be read: {error!r}. Export it again.") from None


def _load_best(path: Location) -> checkpoint.State:
    try:
        return checkpoint.load(path)
    except FileNotFoundError:
        raise SearchError(f"{path} is missing: the search's folder is incomplete.") from None


def _build(config: dict[str, Any]) -> Translator:
    translator = architectures.build(config["architecture"], config["size"], config["parameters"])
    return translator.eval()


@torch.inference_mode()
def _compare(trained: Translator, exported: Translator) -> None:
    random = torch.Generator().manual_seed(0)
    size = trained.config.size
    rgb = torch.rand(2, 3, size, size, generator=random) * 2 - 1
    painted: list[torch.Tensor] = []
    for translator in (trained, exported):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            z = translator.draw_latent(2, torch.Generator().manual_seed(0))
            painted.append(translator.translate(rgb, z))
    difference = (painted[0] - painted[1]).abs().max().item()
    if not difference == 0:
        raise ExportMismatch(
            f"The exported generator differs from the trained one by {difference:g} (of 2): "
            "nothing was written. Please report this."
        )
