"""What the parameters of an architecture did, as charts."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from thermal_search.report.charts import (
    Chart,
    Label,
    Line,
    Tick,
    polyline,
    range_scale,
    scale_of,
    short,
)
from thermal_search.report.figures import dot
from thermal_search.report.results import Results
from thermal_search.tuning.analysis import Parameter
from thermal_search.tuning.summary import TrialRecord

RANKS = 5
"""Shades of completed trials in parallel coordinates, from the best fifth to the worst."""

MAX_AXES = 9
"""Axes of parallel coordinates: more cannot be read."""

WIDTH, HEIGHT = 230.0, 170.0


def slices(results: Results, architecture: str) -> list[Chart]:
    """One chart for each parameter: the objective of every trial by its value."""
    trials = _analyzed(results, architecture)
    return [
        _slice(results, parameter, trials)
        for parameter in results.analyses[architecture].parameters
    ]


def _slice(results: Results, parameter: Parameter, trials: Sequence[TrialRecord]) -> Chart:
    name = results.axes[0]
    chart = Chart(
        title=f"{name} of {len(parameter.values)} trials by {parameter.name}",
        width=WIDTH,
        height=HEIGHT,
        x_label="",
        y_label=name,
        bottom=22.0,
        top=20.0,
        caption=parameter.name,
    )
    values = {trial.id: results.values[trial.id][0] for trial in trials}
    y = scale_of(values.values(), chart.y_start, chart.y_end, robust=True)
    position, ticks = _position(parameter, chart.x_start + 8, chart.x_end - 8, 4)
    chart.y_ticks, chart.x_ticks = y.ticks(4), ticks
    width = (chart.x_end - chart.x_start) / max(len(parameter.choices), 1)
    for trial in reversed(trials):
        if trial.id in parameter.values:
            x = position(parameter.values[trial.id])
            if parameter.choices:  # equal values side by side, in the same place at every time
                x += round((trial.number * 0.618034 % 1 - 0.5) * 0.5 * width, 1)
            chart.dots.append(dot(x, y(values[trial.id]), trial, results))
    return chart


def _position(
    parameter: Parameter, start: float, end: float, ticks: int
) -> tuple[Callable[[Any], float], list[Tick]]:
    """Where a parameter's values are drawn, and its ticks."""
    if not parameter.choices:
        scale = range_scale(parameter.low, parameter.high, start, end, parameter.is_log)
        return scale, scale.ticks(ticks)
    places = range_scale(-0.5, len(parameter.choices) - 0.5, start, end, False)
    by_text = {str(choice): places(index) for index, choice in enumerate(parameter.choices)}
    return (
        lambda value: by_text[str(value)],
        [
            Tick(at, _choice_text(choice))
            for choice, at in zip(parameter.choices, by_text.values(), strict=True)
        ],
    )


def _choice_text(choice: Any) -> str:
    if isinstance(choice, bool) or choice is None:
        return {True: "on", False: "off", None: "none"}[choice]
    return short(choice) if isinstance(choice, (int, float)) else str(choice)


def parallel_coordinates(results: Results, architecture: str) -> Chart | None:
    """Every trial as a line over the parameters; None if fewer than two trials or parameters."""
    trials = _analyzed(results, architecture)
    parameters = results.analyses[architecture].parameters[:MAX_AXES]
    if len(trials) < 2 or len(parameters) < 2:
        return None
    name = results.axes[0]
    chart = Chart(
        title=f"{len(trials)} {architecture} trials over {len(parameters)} parameters and {name}",
        width=max(118.0 * (len(parameters) + 1), 480.0),
        height=330.0,
        x_label="",
        y_label="",
        left=62.0,
        right=64.0,
        top=52.0,
        bottom=34.0,
        kind="parallel",
    )
    values = {trial.id: results.values[trial.id][0] for trial in trials}
    objective = scale_of(values.values(), chart.y_start, chart.y_end, robust=True)
    axes = [_position(p, chart.y_start, chart.y_end, 4) for p in parameters]
    step = (chart.x_end - chart.x_start) / len(parameters)
    places = [round(chart.x_start + index * step, 1) for index in range(len(parameters) + 1)]
    for x, title, ticks in zip(
        places,
        [*(p.name for p in parameters), name],
        [*(ticks for _, ticks in axes), objective.ticks(5)],
        strict=True,
    ):
        chart.lines.append(Line(polyline([(x, chart.y_start), (x, chart.y_end)]), "axis"))
        chart.labels += [Label(x - 4, tick.at + 3, tick.text, "tick", "end") for tick in ticks]
        chart.labels += _wrapped(title, x, chart.top - 10)
    off = chart.height - 12  # where a parameter does not apply
    if any(len(p.values) < len(trials) for p in parameters):
        chart.labels.append(Label(places[0] - 8, off + 3, "not used", "tick", "end"))
    ranks = {id: rank for rank, id in enumerate(_completed(trials))}
    for trial in reversed(trials):
        points = [
            (x, position(p.values[trial.id]) if trial.id in p.values else off)
            for x, p, (position, _) in zip(places, parameters, axes, strict=False)
        ]
        points.append((places[-1], objective(values[trial.id])))
        style = f"rank{RANKS * ranks[trial.id] // len(ranks)}" if trial.id in ranks else "faint"
        chart.lines.append(Line(polyline(points), f"curve {style}", trial.number))
    return chart


def _completed(trials: Iterable[TrialRecord]) -> list[str]:
    return [trial.id for trial in trials if trial.status == "completed"]


def _analyzed(results: Results, architecture: str) -> list[TrialRecord]:
    """The trials with values, best first."""
    parameters = results.analyses[architecture].parameters
    known = {id for parameter in parameters for id in parameter.values}
    return [trial for trial in results.by_architecture[architecture] if trial.id in known]


def _wrapped(text: str, x: float, bottom: float) -> list[Label]:
    """A name over up to three lines, broken at underscores."""
    lines = [""]
    for word in text.split("_"):
        if lines[-1] and len(lines[-1]) + len(word) > 11:
            lines.append("")
        lines[-1] += ("_" if lines[-1] or len(lines) > 1 else "") + word
    first = bottom - 12.0 * (len(lines) - 1)
    return [
        Label(x, first + 12.0 * index, line, "axis-title", "middle")
        for index, line in enumerate(lines)
    ]
