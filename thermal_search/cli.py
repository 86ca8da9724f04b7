"""The commands of thermal-search: demo, search, ui, export, translate, evaluate, fid."""

import os
import sys
from collections.abc import Sequence
from json import loads
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from thermal_search.choices import EvaluationSplit
from thermal_search.command_line import LocationFlag, Switch, WholeNumber, create_app, run
from thermal_search.errors import SearchError, printable
from thermal_search.storage import Location
from thermal_search.tuning.settings import (
    FeatureSettings,
    LaunchSettings,
    MetricSettings,
    SearchSettings,
)

if TYPE_CHECKING:
    from thermal_search.architectures.from_file import SourceFile
    from thermal_search.evaluation.report import EvaluationReport

# Commands import what they run: torch, Ray and MLflow take seconds, and --help should not.

NAME = "thermal-search"
CLUSTER_WAIT_MINUTES = 15.0
"""Default wait for the machines of a cluster: what a cloud takes to start one and install on it."""

SearchFlags = Annotated[SearchSettings, Parameter(name="*")]
LaunchFlags = Annotated[LaunchSettings, Parameter(name="*")]
FeatureFlags = Annotated[FeatureSettings, Parameter(name="*")]
MetricFlags = Annotated[MetricSettings, Parameter(name="*")]
"""Settings as flags of a command, without a prefix."""

ArchitectureFiles = tuple[Path, ...]
"""Files of architectures of one's own, each registered before the command builds any."""

LAUNCH, FEATURES, METRICS = LaunchSettings(), FeatureSettings(), MetricSettings()
"""The defaults."""

app = create_app(
    NAME,
    "Searches for the best GAN that translates RGB images to thermal images, over architectures "
    "and their hyperparameters.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command. Invalid input ends with one sentence and exit code 1 or 2."""
    run(app, arguments)


@app.command
def demo(*, output: Path = Path("demo")) -> None:
    """Run every step, small, on images that the demo draws itself.

    Parameters
    ----------
    output
        An empty folder to write to.
    """
    from thermal_search.demo.tour import tour

    tour(output)


@app.command
def search(*, settings: SearchFlags, launch: LaunchFlags = LAUNCH) -> None:
    """Search for the best generator on this machine or on a Ray cluster."""
    run_search(settings, launch, default_address="local")


def run_search(settings: SearchSettings, launch: LaunchSettings, *, default_address: str) -> None:
    """Runs a search and prints its ranking.

    Args:
        default_address: the Ray cluster to join if neither --address nor RAY_ADDRESS names one.
    """
    from thermal_search.tuning.nodes import NodeWait
    from thermal_search.tuning.plan import plan_from_settings
    from thermal_search.tuning.ranking_text import describe
    from thermal_search.tuning.search import search

    plan = plan_from_settings(settings, resume=launch.resume)
    address = launch.address or os.environ.get("RAY_ADDRESS", default_address)
    minutes = launch.wait_minutes
    if minutes is None:
        minutes = 0.0 if address == "local" else CLUSTER_WAIT_MINUTES
    wait = NodeWait(launch.wait_for_nodes, minutes)
    record = search(plan, address=address, resume=launch.resume, storage=launch.storage, wait=wait)
    print(describe(record))
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
    from thermal_search.tuning.plan import SearchPlan

    SearchPlan.load(output)
    serve_ui(output, host=host, port=port)


@app.command
def export(
    output: LocationFlag,
    /,
    *,
    to: LocationFlag | None = None,
    architecture_file: ArchitectureFiles = (),
) -> None:
    """Write the best generator of a search as safetensors with its configuration.

    Parameters
    ----------
    output
        The --output folder of the search.
    to
        Folder to write to; default: the folder generator in OUTPUT.
    architecture_file
        Python files of architectures of one's own, which are run.
    """
    from thermal_search.export import export

    _register(architecture_file)
    folder = export(output, to)
    print(f"The best generator is in {folder}; it generates the same images as the trained one.")


@app.command
def translate(
    model: LocationFlag,
    source: Path,
    target: Path,
    /,
    *,
    square: Switch = False,
    celsius: Switch = False,
    seed: WholeNumber = 0,
    architecture_file: ArchitectureFiles = (),
) -> None:
    """Translate a folder of RGB images to thermal images.

    Parameters
    ----------
    model
        A folder written by export.
    source
        The folder of RGB images.
    target
        The folder to write thermal images to.
    square
        Write images of the generator's own size, not of the RGB image's size.
    celsius
        Write 16-bit PNG in units of 0.01 K; needs a generator trained on 16-bit thermal images.
    seed
        Seed of the latents.
    architecture_file
        Python files of architectures of one's own, which are run.
    """
    from thermal_search.translation import translate_folder

    _register(architecture_file)
    result = translate_folder(model, source, target, square=square, celsius=celsius, seed=seed)
    for path, reason in result.left_out:
        print(printable(f"Left out {path.name}: {reason}"), file=sys.stderr)
    print(f"{len(result.written)} thermal images are in {target}.")


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
    metrics: MetricFlags = METRICS,
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
        content = loads(path.read_bytes()) if path.is_file() else None
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
