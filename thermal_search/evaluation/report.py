"""The result of `thermal-search evaluate`: all metrics of a generator, with the baselines."""

from rich.console import Console
from rich.table import Table

from thermal_search.documents import Section
from thermal_search.errors import printable
from thermal_search.evaluation.baselines import Baselines
from thermal_search.evaluation.comparison import EDGES_NOTE, compare, needs_edges_note
from thermal_search.metrics import HIGHER_IS_BETTER

UNORDERED = ("images", "kid_std")
"""The starts of keys of which neither higher nor lower is better."""

WIDTH = 160
"""Columns of the table if the output is not a terminal."""


class EvaluationReport(Section):
    """All metrics of an exported generator on one split of a dataset."""

    model: str
    """The name of the generator's folder."""

    architecture: str
    dataset: str
    """The digest of the dataset's pixels."""

    split: str
    metric: str
    """The key of the Frechet distance."""

    protocol: dict[str, str | int]
    """How the metrics are measured."""

    metrics: dict[str, float]
    """By key, as in `EvaluationResult`."""

    baselines: Baselines
    beats_inverted_grey: bool
    """Whether its Frechet distance is lower than that of inverted grey RGB."""

    better_than: dict[str, list[str]]
    """By baseline: the measures in which the generator is better."""

    notes: list[str]
    """Sentences on what these metrics do not compare with; empty if there is nothing to say."""


def print_report(report: EvaluationReport) -> None:
    """Prints the table of metrics, with a column for each baseline, and what beats what."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    protocol, baselines = report.protocol, report.baselines
    table = Table(
        title=f"{report.model}, {protocol['images']} pairs of the {report.split} split",
        caption=f"{protocol['features']} {protocol['weights']}, {protocol['resize']}, "
        f"{protocol['precision']}",
    )
    for column in ("metric", "better", "value", *(name.replace("_", " ") for name in baselines)):
        # A name that is cut off at the end could not be searched for.
        is_name = column in ("metric", "better")
        table.add_column(column, justify="left" if is_name else "right", no_wrap=is_name)
    for name, value in {**report.metrics, "images": protocol["images"]}.items():
        better = "higher" if name.startswith(HIGHER_IS_BETTER) else "lower"
        baseline_values = [
            f"{baseline[name]:.4g}" if name in baseline else "" for baseline in baselines.values()
        ]
        table.add_row(
            name, "" if name.startswith(UNORDERED) else better, f"{value:.6g}", *baseline_values
        )
    console.print(table)
    comparisons = compare(report.metrics, baselines, report.metric)
    for comparison in comparisons:
        console.print(comparison.sentence(), highlight=False)
    if needs_edges_note(comparisons):
        console.print(EDGES_NOTE, highlight=False)
    for note in report.notes:
        console.print(printable(f"Note: {note}"), highlight=False, markup=False)
