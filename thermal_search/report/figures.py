"""The record of a search as charts."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from thermal_search.evaluation.baselines import Baselines
from thermal_search.evaluation.comparison import COMPARED, display_name
from thermal_search.report.charts import (
    Chart,
    Dot,
    Label,
    Line,
    Scale,
    number,
    polyline,
    scale_of,
    spread_labels,
)
from thermal_search.report.results import Results
from thermal_search.tuning.summary import EvaluationRecord, TrialRecord

Abscissa = Literal["images", "minutes"]

COLORS = 7
"""Colors of the palette in page.css (Okabe and Ito's, which the color-blind tell apart); more lines
have dashes too."""

SMALL_WIDTH, SMALL_HEIGHT = 340.0, 220.0
WIDTH, HEIGHT = 460.0, 330.0


def color_of(architecture: str, architectures: Sequence[str]) -> str:
    """The CSS classes of an architecture's lines and dots."""
    index = list(architectures).index(architecture)
    return f"c{index % COLORS}" + (" dashed" if index >= COLORS else "")


def value_of(results: Results, axis: int) -> Callable[[EvaluationRecord], float]:
    """One evaluation's value of an axis of the objective."""
    return lambda evaluation: results.objective.axes[axis].value(evaluation.metrics)


def minutes(trial: TrialRecord, evaluation: EvaluationRecord) -> float:
    """When an evaluation was, in minutes of its trial; in proportion to the images if an older
    record does not say."""
    if evaluation.seconds is not None:
        return evaluation.seconds / 60
    return trial.seconds * evaluation.images / trial.images / 60 if trial.images else 0.0


def overview(results: Results, axis: int, across: Abscissa) -> Chart:
    """The best trial of each architecture, by its evaluations, with the baselines."""
    best = results.best_of_each
    name = results.axes[axis]
    unit = "images shown" if across == "images" else "minutes of the trial"
    chart = Chart(
        title=f"{name} of the best trial of each architecture against {unit}",
        width=WIDTH,
        height=HEIGHT,
        x_label=unit,
        y_label=name,
        right=8.0 + 6.4 * max((len(architecture) for architecture in best), default=8),
        caption=f"Best trial of each architecture against {unit}",
        kind="curves",
    )
    value = value_of(results, axis)
    lines = baseline_values(results, results.record.baselines, axis)
    shown = [value(e) for trial in best.values() for e in trial.history]
    y = scale_of(shown + _near(lines.values(), shown), chart.y_start, chart.y_end, robust=True)
    x = _x_scale(best.values(), across, chart)
    _add_axes(chart, x, y)
    _add_baselines(chart, y, lines)
    ends: list[Label] = []
    for architecture, trial in best.items():
        style = color_of(architecture, results.plan.architectures)
        points = _points(trial, across, x, y, value)
        chart.lines.append(Line(polyline(points), f"curve strong {style}", trial.number))
        chart.dots += [Dot(*point, f"{style} point", trial.number) for point in points]
        ends.append(Label(chart.x_end + 5, points[-1][1] + 3.5, architecture, f"end {style}"))
    chart.labels += spread_labels(ends, 12.0, chart.y_end + 4, chart.y_start)
    return chart


def learning_curves(
    results: Results, architecture: str, axis: int, across: Abscissa
) -> Chart | None:
    """All evaluated trials of an architecture; None if there is none."""
    trials = results.by_architecture.get(architecture, [])
    if not trials:
        return None
    name = results.axes[axis]
    unit = "images shown" if across == "images" else "minutes of the trial"
    best = trials[0]
    chart = Chart(
        title=f"{name} of {len(trials)} {architecture} trials against {unit}",
        width=SMALL_WIDTH,
        height=SMALL_HEIGHT,
        x_label=unit,
        y_label=name,
        caption=architecture,
        kind="curves",
    )
    value = value_of(results, axis)
    # One range of values for all architectures, so that their charts compare.
    everything = [value(e) for trial in results.ranking for e in trial.history]
    y = scale_of(everything, chart.y_start, chart.y_end, robust=True)
    x = _x_scale(results.ranking if across == "images" else trials, across, chart)
    _add_axes(chart, x, y)
    _add_baselines(chart, y, baseline_values(results, results.record.baselines, axis))
    for trial in reversed(trials):  # the best is drawn last
        points = _points(trial, across, x, y, value)
        style = "best" if trial is best else trial.status
        if len(points) > 1:
            chart.lines.append(Line(polyline(points), f"curve {style}", trial.number))
        chart.dots.append(Dot(*points[-1], style, trial.number))
    return chart


def baseline_values(results: Results, baselines: Baselines, axis: int) -> dict[str, float]:
    """The objective of the baselines that generate images, by name."""
    objective = results.objective.axes[axis]
    return {
        name: objective.value(baselines[name])
        for name in COMPARED
        if name in baselines and objective.keys <= baselines[name].keys()
    }


def best_so_far(results: Results) -> Chart | None:
    """Every trial in the order of proposals, and the lowest objective so far; None with two
    objectives, or fewer than two evaluated trials."""
    ranking = results.ranking
    if len(ranking) < 2 or results.objective.has_two_objectives:
        return None
    name = results.axes[0]
    chart = Chart(
        title=f"{name} of {len(ranking)} trials in the order of their proposals, and the best",
        width=WIDTH,
        height=HEIGHT,
        x_label="trial",
        y_label=name,
        caption="Every trial, and the best completed one so far",
    )
    trials = sorted(ranking, key=lambda trial: trial.number)
    values = {trial.number: results.values[trial.id][0] for trial in trials}
    y = scale_of(values.values(), chart.y_start, chart.y_end, robust=True)
    last = max(trials[-1].number, 1)
    x = Scale(-0.03 * last, last * 1.03, chart.x_start, chart.x_end)
    _add_axes(chart, x, y, first_tick=0)
    steps: list[tuple[float, float]] = []
    best = None
    for trial in trials:
        chart.dots.append(dot(x(trial.number), y(values[trial.number]), trial, results))
        if trial.status == "completed" and (best is None or values[trial.number] < best):
            if best is not None:
                steps.append((x(trial.number), y(best)))
            best = values[trial.number]
            steps.append((x(trial.number), y(best)))
    if best is not None:
        steps.append((x(last), y(best)))
        chart.lines.append(Line(polyline(steps), "step"))
    return chart


def pareto_chart(results: Results) -> Chart | None:
    """Every trial by its two objectives, and the Pareto front; None with one objective."""
    ranking = results.ranking
    if not results.objective.has_two_objectives or not ranking:
        return None
    across, up = results.axes
    pareto_front = results.pareto_front
    chart = Chart(
        title=f"{up} against {across} of {len(ranking)} trials; "
        f"{len(pareto_front)} are on the Pareto front",
        width=WIDTH,
        height=HEIGHT,
        x_label=f"{across} (lower is better)",
        y_label=f"{up} (lower is better)",
        caption="Pareto front: no trial lies below and left of the line",
    )
    values = results.values
    x = scale_of((v[0] for v in values.values()), chart.x_start, chart.x_end, robust=True)
    y = scale_of((v[1] for v in values.values()), chart.y_start, chart.y_end, robust=True)
    _add_axes(chart, x, y)
    steps: list[tuple[float, float]] = []
    for id in pareto_front:
        point = x(values[id][0]), y(values[id][1])
        if steps:
            steps.append((point[0], steps[-1][1]))
        steps.append(point)
    chart.lines.append(Line(polyline(steps), "step"))
    chart.dots += [dot(x(values[t.id][0]), y(values[t.id][1]), t, results) for t in ranking]
    return chart


def dot(x: float, y: float, trial: TrialRecord, results: Results) -> Dot:
    """A trial in a chart of all trials."""
    style = "best" if trial is results.best else trial.status
    return Dot(x, y, style, trial.number)


def _x_scale(trials: Iterable[TrialRecord], across: Abscissa, chart: Chart) -> Scale:
    if across == "images":
        values = [float(trial.images) for trial in trials]
        return scale_of(values, chart.x_start, chart.x_end, from_zero=True)
    ends = [minutes(t, t.history[-1]) for t in trials if t.history]
    scale = scale_of(ends, chart.x_start, chart.x_end)
    if scale.is_log:  # architectures differ up to a hundredfold in their cost
        firsts = [m for t in trials if t.history and (m := minutes(t, t.history[0])) > 0]
        return scale_of([*firsts, *ends], chart.x_start, chart.x_end)
    high = max(ends, default=1.0)
    return Scale(0.0, high * 1.02 or 1.0, chart.x_start, chart.x_end)


def _add_axes(chart: Chart, x: Scale, y: Scale, first_tick: float | None = None) -> None:
    chart.x_ticks, chart.y_ticks = x.ticks(), y.ticks()
    if first_tick is not None:
        lowest = x(first_tick)
        chart.x_ticks = [tick for tick in chart.x_ticks if tick.at >= lowest]


def _add_baselines(chart: Chart, y: Scale, values: Mapping[str, float]) -> None:
    """A dashed line for each baseline in the range, with its name above it."""
    labels: list[Label] = []
    for name, value in values.items():
        if y.low <= value <= y.high:
            at = y(value)
            path = polyline([(chart.x_start, at), (chart.x_end, at)])
            chart.lines.append(Line(path, "baseline"))
            text = f"{display_name(name)} {number(value)}"
            labels.append(Label(chart.x_end - 2, at - 3, text, "baseline", "end"))
    chart.labels += spread_labels(labels, 11.0, chart.y_end + 8, chart.y_start - 3)


def _near(baselines: Iterable[float], values: Sequence[float]) -> list[float]:
    """The baselines that do not dwarf the curves."""
    if not values:
        return []
    low, high = min(values), max(values)
    reach = max(high - low, 0.1 * abs(high))
    return [value for value in baselines if low - 2 * reach <= value <= high + 0.5 * reach]


def _points(
    trial: TrialRecord,
    across: Abscissa,
    x: Scale,
    y: Scale,
    value: Callable[[EvaluationRecord], float],
) -> list[tuple[float, float]]:
    return [
        (x(e.images if across == "images" else minutes(trial, e)), y(value(e)))
        for e in trial.history
    ]
