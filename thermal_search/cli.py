"""The commands of thermal-search: demo, prepare, search, ui, report, export, translate, evaluate,
fid."""

import os
import sys
from collections.abc import Sequence
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from thermal_search import local_ray
from thermal_search.choices import EvaluationSplit
from thermal_search.command_line import LocationFlag, WholeNumber, create_app, run
from thermal_search.errors import SearchError, printable
from thermal_search.preparation.command import INTERRUPTED, PAIRS, prepare
from thermal_search.storage import Location
from thermal_search.translation.settings import TranslationSettings
from thermal_search.tuning.settings import (
    EvaluationSettings,
    FeatureSettings,
    LaunchSettings,
    SearchSettings,
)

if TYPE_CHECKING:
    from thermal_search.architectures.from_file import SourceFile
    from thermal_search.evaluation.report import EvaluationReport

# Commands import what they run: torch, Ray and MLflow take seconds, and --help should not.

NAME = "thermal-search"
MAX_REPORT_BYTES = 2**24
"""A larger file is no report of `evaluate`."""

SearchFlags = Annotated[SearchSettings, Parameter(name="*")]
LaunchFlags = Annotated[LaunchSettings, Parameter(name="*")]
FeatureFlags = Annotated[FeatureSettings, Parameter(name="*")]
EvaluationFlags = Annotated[EvaluationSettings, Parameter(name="*")]
TranslationFlags = Annotated[TranslationSettings, Parameter(name="*")]
"""Settings as flags of a command, without a prefix."""

ArchitectureFiles = tuple[Path, ...]
"""Files of architectures of one's own, each registered before the command builds any."""

LAUNCH, FEATURES, METRICS = LaunchSettings(), FeatureSettings(), EvaluationSettings()
TRANSLATION = TranslationSettings()
"""The defaults."""

app = create_app(
    NAME,
    "Searches for the best GAN that translates RGB images to thermal images, over architectures "
    "and their hyperparameters.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command. Invalid input ends with one sentence and exit code 1 or 2."""
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    if words[:1] == ["prepare"]:
        run(app, words, interrupted=INTERRUPTED, pairs=PAIRS)
    else:
        run(app, words)


@app.command
def demo(*, output: Path = Path("demo")) -> None:
    """Run every step, small, on images that the demo draws itself.

    Parameters
    ----------
    output
        An empty folder to write to.
    """
    local_ray.hide_warnings()
    from thermal_search.demo.tour import tour

    tour(output)


app.command(prepare)


@app.command
def search(*, settings: SearchFlags, launch: LaunchFlags = LAUNCH) -> None:
    """Search for the best generator on this machine or on a Ray cluster."""
    run_search(settings, launch, default_address="local")


def run_search(settings: SearchSettings, launch: LaunchSettings, *, default_address: str) -> None:
    """Runs a search and prints its ranking.

    Args:
        default_address: the Ray cluster to join if neither --address nor RAY_ADDRESS names one.
    """
    local_ray.hide_warnings()
    from thermal_search.tuning.launch import launch as run_launch
    from thermal_search.tuning.launch import try_out
    from thermal_search.tuning.ranking_text import describe

    if launch.dry_run:
        print(try_out(settings, launch, default_address=default_address))
        return
    record = run_launch(settings, launch, default_address=default_address)
    print(describe(record))
    from thermal_search.report.page import write_after_search

    write_after_search(record)
    record.require_results()


@app.command
def ui(output: LocationFlag, /, *, port: WholeNumber = 5000, host: str = "127.0.0.1") -> None:
    """Open the MLflow UI of a search.

    Parameters
    ----------
    output
        The --output folder of the search.
    port
        TCP port of the server.
    host
        Address that the server listens on; 127.0.0.1 is this machine only.
    """
    from thermal_search.tracking.server import serve_ui
    from thermal_search.tuning.logged_metrics import search_view
    from thermal_search.tuning.plan import SearchPlan

    view = search_view(SearchPlan.load(output))
    serve_ui(output, view, host=host, port=port)


@app.command
def report(output: LocationFlag, /, *, to: LocationFlag | None = None) -> None:
    """Write the results of a search, as they are now, as one HTML file that needs no network.

    Parameters
    ----------
    output
        The --output folder of the search; it may be running.
    to
        File to write; default: report.html in OUTPUT.
    """
    from thermal_search.report.page import write_report

    print(f"The report is in {write_report(output, to)}; open it in a browser.")


@app.command
def export(
    output: LocationFlag,
    /,
    *,
    trial: str | None = None,
    format: str = "safetensors",
    to: LocationFlag | None = None,
    register: str | None = None,
    architecture_file: ArchitectureFiles = (),
) -> None:
    """Write the best generator of a search, with its configuration and a model card.

    Parameters
    ----------
    output
        The --output folder of the search.
    trial
        The id of a trial or retraining; default: the winner of the final ranking, or the best
        trial.
    format
        Files to write: safetensors (always, for this package), pt2 (torch.export) and onnx,
        separated by commas.
    to
        Folder to write to; default: the folder generator in OUTPUT.
    register
        Name of a registered model in MLflow, of which the generator becomes the newest version,
        with the alias champion.
    architecture_file
        Python files of architectures of one's own, which are run.
    """
    from thermal_search.export import describe_export, export, parse_formats

    _register(architecture_file)
    if register is not None:
        from thermal_search.tracking.registry import require_model_name

        require_model_name(register)
    folder = export(output, to, trial=trial, formats=parse_formats(format))
    print(describe_export(folder))
    if register is not None:
        from thermal_search.tracking.registry import register as register_model
        from thermal_search.tuning.plan import SearchPlan

        print(register_model(output, SearchPlan.load(output).id, folder, register))


@app.command
def translate(
    model: LocationFlag,
    source: LocationFlag,
    target: LocationFlag,
    /,
    *,
    architecture_file: ArchitectureFiles = (),
    settings: TranslationFlags = TRANSLATION,
) -> None:
    """Translate RGB images or a video to thermal ones.

    Parameters
    ----------
    model
        A folder written by export.
    source
        An image, a folder with its subfolders, a pattern in quotes ("photos/*.jpg"), or a video;
        may be in a bucket.
    target
        The folder to write to, or for one image or video the file.
    architecture_file
        Python files of architectures of one's own, which are run.
    """
    from thermal_search.translation.command import translate as run_translation

    _register(architecture_file)
    result = run_translation(model, source, target, settings)
    for name, reason in result.left_out:
        print(printable(f"Left out {name}: {reason}"), file=sys.stderr)
    if result.frames:
        print(printable(f"{result.written[0]} has {result.frames} thermal frames, and no sound."))
    else:
        kept = f" ({len(result.kept)} of an earlier run)" if result.kept else ""
        count = len(result.written) + len(result.kept)
        print(printable(f"{count} thermal image{'' if count == 1 else 's'} in {target}{kept}."))


@app.command
def evaluate(
    model: LocationFlag,
    /,
    *,
    data: LocationFlag,
    split: EvaluationSplit = "val",
    workers: WholeNumber = 1,
    json: Path | None = None,
    architecture_file: ArchitectureFiles = (),
    metrics: EvaluationFlags = METRICS,
) -> None:
    """Evaluate an exported generator on a dataset with every metric.

    Parameters
    ----------
    model
        A folder written by export.
    data
        A folder written by process.py, or its address in a bucket.
    split
        The split of the dataset.
    workers
        Number of processes.
    json
        A file to write the metrics to as well.
    architecture_file
        Python files of architectures of one's own, which are run.
    """
    from thermal_search.evaluation.command import EvaluationRequest
    from thermal_search.evaluation.command import evaluate as run_evaluation
    from thermal_search.evaluation.report import print_report

    if json:
        _refuse_foreign_report(json)
    report = run_evaluation(
        EvaluationRequest(
            model=model,
            data=data,
            split=split,
            workers=workers,
            features=metrics.features,
            inception_weights=metrics.inception_weights,
            features_precision=metrics.features_precision,
            lpips_weights=metrics.lpips_weights,
            own_architectures=_register(architecture_file),
        )
    )
    print_report(report)
    if json:
        _write_report(json, report)


@app.command
def fid(
    first: Path,
    second: Path,
    /,
    *,
    save: Path | None = None,
    metrics: FeatureFlags = FEATURES,
) -> None:
    """Compute the Frechet distance between two folders of images.

    Parameters
    ----------
    first
        A folder of images, or a .npz file of their statistics.
    second
        The folder or .npz file to compare with.
    save
        A .npz file to save the statistics of FIRST to.
    """
    from thermal_search.evaluation.fid import distance_between

    precision = metrics.features_precision
    metric, distance = distance_between(
        first,
        second,
        features=metrics.features,
        inception_weights=metrics.inception_weights,
        precision=precision,
        save=save,
    )
    note = "" if precision == "fp32" else f" (features in {precision})"
    print(f"{metric} {distance:.6f}{note}")


def _register(files: Sequence[Path]) -> "tuple[SourceFile, ...]":
    """Adds architectures of one's own to the table, without loading torch if there are none."""
    if not files:
        return ()
    from thermal_search.architectures.from_file import read_and_register

    return tuple(read_and_register(file) for file in files)


def _refuse_foreign_report(path: Path) -> None:
    """SearchError if there is a file that is no earlier report."""
    if not os.path.lexists(path):
        return
    try:
        content = loads(Location.of(path).read_bytes(MAX_REPORT_BYTES))
    except (OSError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not {"model", "metrics", "baselines"} <= content.keys():
        raise SearchError(
            f"--json {path} exists and is not an earlier report: choose another file."
        )


def _write_report(path: Path, report: "EvaluationReport") -> None:
    try:
        Location.of(path).write_text(report.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise SearchError(
            f"--json {path} cannot be written ({error.strerror or error}): choose another file; "
            "the metrics are above."
        ) from None


if __name__ == "__main__":
    main()
