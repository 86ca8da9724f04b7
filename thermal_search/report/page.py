"""Writes the report of a search: data into page.html, with its style and its script inside.

Nothing is loaded: images are data URIs, and a policy in the page itself (CSP) allows only the style
and the script whose digests it names. Every text is escaped by Jinja's autoescape.
"""

import base64
import hashlib
import json
import logging
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thermal_search.command_line import version
from thermal_search.errors import SearchError, printable
from thermal_search.report import budget, figures, gather, parameter_figures
from thermal_search.report.charts import Chart, number
from thermal_search.report.gallery import Source, galleries
from thermal_search.report.results import Results
from thermal_search.report.suggestions import suggest
from thermal_search.storage import Location
from thermal_search.training.trial_plan import TEST_GRID, grid_name
from thermal_search.tuning.analysis import Analysis
from thermal_search.tuning.ownership import require_free
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.record_files import REPORT_FILE
from thermal_search.tuning.summary import TrialRecord

PACKAGE = "thermal_search.report"
FORMAT = "thermal-search report 1"
"""In the first bytes of every report: what writes the next one finds it there."""

MAGIC_BYTES = 400
SHOWN_SLICES = 10
SHOWN_IMPORTANCES = 10
"""Slice plots that are shown at once, of the most important parameters."""


def write_report(output: Location, to: Location | None = None) -> Location:
    """Writes the report of the search in `output`, as it is now, and returns its file, by default
    OUTPUT/report.html. Of the search nothing is changed, and it may be running.

    Raises SearchError if there is no search, its record is damaged, or the file is not ours.
    """
    record = SearchRecord.load(output)
    return _write(record, to or record.output / REPORT_FILE)


def _write(record: SearchRecord, path: Location) -> Location:
    _require_own(path)
    html = render(record)
    try:
        path.write_bytes(html.encode())
    except OSError as error:
        raise SearchError(
            f"The report {path} cannot be written ({error.strerror or error}): pass another file "
            "with --to."
        ) from None
    return path


def _require_own(path: Location) -> None:
    """SearchError if there is something at `path` that is not an earlier report."""
    if not path.exists():
        return
    head = b""
    if path.is_file():
        try:
            with path.open_input() as file:
                head = file.read(MAGIC_BYTES)
        except OSError:
            pass  # what cannot be read is not known to be ours
    if FORMAT.encode() not in head:
        raise SearchError(
            f"{path} exists and is not an earlier report: pass another file with --to."
        )


def render(record: SearchRecord) -> str:
    """The page."""
    logging.getLogger("optuna").setLevel(logging.ERROR)
    results = Results(record)
    is_running = _is_held(record.output)
    style, script = _asset("page.css"), _asset("page.js")
    galleries_, missing = galleries(_sources(results))
    test_galleries, _ = galleries(_test_sources(results))
    axes = range(len(results.axes))
    return _template().render(
        format=FORMAT,
        version=version(),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        name=printable(record.output.name),
        now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        state=_state(record, is_running),
        results=results,
        trials=_trial_data(results),
        tiles=gather.tiles(results),
        ranking=gather.ranking(results),
        best_trial=gather.best_trial(results),
        without_evaluation=gather.without_evaluation(results),
        baselines=gather.baseline_table(results, record.baselines),
        test_baselines=gather.baseline_table(results, record.test_baselines),
        finalists=gather.finalists(results),
        winner_on_test=gather.winner_on_test(results),
        retrainings_note=gather.retrainings_note(results),
        galleries=galleries_,
        test_galleries=test_galleries,
        missing_images=missing,
        overview=[
            figures.overview(results, axis, across)
            for axis in axes
            for across in ("images", "minutes")
            if results.ranking
        ],
        curves=[
            (
                across,
                axis,
                [
                    figures.learning_curves(results, name, axis, across)
                    for name in results.best_of_each
                ],
            )
            for axis in axes
            for across in ("images", "minutes")
        ],
        progress_charts=[
            chart
            for chart in (figures.best_so_far(results), figures.pareto_chart(results))
            if chart
        ],
        endings=budget.endings(results),
        ended_early=budget.ended_early(results),
        lineage=budget.lineage(results),
        analyses=[_analysis(results, name) for name in results.best_of_each],
        shown_slices=SHOWN_SLICES,
        shown_importances=SHOWN_IMPORTANCES,
        cost=budget.cost(results),
        cost_notes=budget.cost_notes(results),
        suggestions=suggest(record, results.analyses, is_running=is_running),
        settings=budget.settings(results),
    )


def _is_held(output: Location) -> bool:
    """Whether a search runs in the folder now."""
    try:
        require_free(output)
    except SearchError:
        return True
    return False


def _state(record: SearchRecord, is_running: bool) -> str:
    if is_running:
        return "running"
    if not (record.has_every_trial and record.has_every_retraining):
        return "not finished"
    return "finished"


def _sources(results: Results) -> list[Source]:
    """The best trial of each architecture, and the winner of the final ranking."""
    record = results.record
    sources: list[Source] = []
    if final := results.final_ranking:
        trial = record[final.generator]
        value = record.objective_values(trial)[0]
        sources.append(_source(record, trial, "winner", f"{trial.architecture}, retrained", value))
    for trial in results.best_of_each.values():
        value = results.values[trial.id][0]
        sources.append(_source(record, trial, trial.architecture, f"trial {trial.id}", value))
    return sources


def _source(
    record: SearchRecord, trial: TrialRecord, title: str, detail: str, value: float
) -> Source:
    grid = record.folder(trial) / grid_name(trial.images)
    return Source(title, f"{detail}, {record.objective.axes[0]} {number(value)}", grid)


def _test_sources(results: Results) -> list[Source]:
    """The winner on the test split."""
    final = results.final_ranking
    if not final or not final.winner.test_metrics:
        return []
    grid = results.record.folder(results.record[final.generator]) / TEST_GRID
    return [Source("winner", final.architecture, grid)]


def _analysis(results: Results, architecture: str) -> dict[str, Any]:
    analysis = results.analyses[architecture]
    return {
        "architecture": architecture,
        "analysis": analysis,
        "importances": _importances(analysis),
        "parallel": parameter_figures.parallel_coordinates(results, architecture),
        "axes": min(len(analysis.parameters), parameter_figures.MAX_AXES),
        "slices": parameter_figures.slices(results, architecture),
    }


def _importances(analysis: Analysis) -> list[tuple[str, str, float]]:
    """Each parameter's share, in percent, and the length of its bar, of 100."""
    known = [(p.name, p.importance) for p in analysis.parameters if p.importance is not None]
    largest = max((share for _, share in known), default=1.0) or 1.0
    return [(name, f"{100 * share:.1f}", round(100 * share / largest, 1)) for name, share in known]


def _trial_data(results: Results) -> str:
    """What the script shows of each trial: a text, and its evaluations, as JSON without any
    character of HTML."""
    content = {
        trial.number: {
            "name": f"{trial.architecture} {trial.id}",
            "text": ", ".join(
                f"{axis} {number(value)}"
                for axis, value in zip(results.axes, results.values[trial.id], strict=True)
            )
            + f"; {trial.status} at {trial.images:,} images",
            "history": [
                [
                    e.images,
                    *(float(f"{axis.value(e.metrics):.4g}") for axis in results.objective.axes),
                ]
                for e in trial.history
            ],
        }
        for trial in results.ranking
    }
    text = json.dumps({"axes": results.axes, "trials": content}, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _policy(style: str, script: str) -> str:
    """The page's content security policy."""

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; img-src data:; style-src {digest(style)}; "
        f"script-src {digest(script)}; base-uri 'none'; form-action 'none'"
    )


@cache
def _asset(name: str) -> str:
    return resources.files(PACKAGE).joinpath(name).read_text("utf-8")


@cache
def _template() -> Any:
    environment = Environment(
        loader=PackageLoader(PACKAGE, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    environment.tests["chart"] = lambda value: isinstance(value, Chart)
    return environment.get_template("page.html")


def write_after_search(record: SearchRecord) -> None:
    """The report at the end of a search, which an error in it does not fail: one sentence warns."""
    try:
        print(f"The report is in {_write(record, record.output / REPORT_FILE)}.", flush=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        logging.getLogger(__name__).warning(
            "The report was not written (%s); everything else is. Write it with thermal-search "
            "report.",
            reason,
        )
