"""The result of a search as text."""

import shlex
from collections.abc import Iterator

from thermal_search.evaluation.baselines import TRIVIAL_BASELINE
from thermal_search.evaluation.comparison import (
    EDGES_NOTE,
    Comparison,
    compare,
    display_name,
    needs_edges_note,
)
from thermal_search.tuning.pareto_plot import FILE as PARETO_FRONT
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.summary import FinalRanking, MeanAndStd, TrialRecord


def describe(record: SearchRecord) -> str:
    """The ranking, the baselines, the final ranking, and the commands that come next."""
    output = shlex.quote(str(record.output))
    lines = list(_ranking(record))
    if any(trial.status == "running" for trial in record.trials.values()):
        lines.append(f"Not finished: resume with thermal-search search --output {output} --resume.")
    if record.best is None:
        lines.append("No trial reached an evaluation; the reasons are above.")
        return "\n".join(lines)
    if record.objective.has_two_objectives:
        lines.append(f"The Pareto front is plotted in {record.output / PARETO_FRONT}.")
    lines += [*_baselines(record), *_best_trial(record)]
    if record.final_ranking:
        lines += ["", *_final_ranking(record, record.final_ranking)]
    elif record.retrainings:
        lines += ["", _no_final_ranking(record)]
    exported = "the winner of the final ranking" if record.final_ranking else "the best generator"
    lines += [
        "",
        f"thermal-search ui {output}       # compare the trials",
        f"thermal-search export {output}   # {exported}",
    ]
    return "\n".join(lines)


def _ranking(record: SearchRecord) -> Iterator[str]:
    names = [str(axis) for axis in record.objective.axes]
    columns = [(name, max(len(name), 9)) for name in names]
    heads = "  ".join(f"{name:>{width}}" for name, width in columns)
    yield f"{'':2} {heads}  {'architecture':15} {'trial':8} {'images':>9}  status"
    pareto_front = record.pareto_front()
    for rank, trial in enumerate(record.ranking(), start=1):
        objective = zip(record.objective_values(trial), columns, strict=True)
        values = "  ".join(f"{_format(value):>{width}}" for value, (_, width) in objective)
        remarks = [trial.status]
        if trial.id in pareto_front:
            remarks.append("on the Pareto front")
        if start := trial.start:
            remarks.append(f"started with {start.taken_over} tensors, {start.left_out} left out")
        remarks += [
            f"beats {display_name(comparison.baseline)} in {comparison.measures}"
            for comparison in compare_trial(record, trial)
            if comparison.baseline == TRIVIAL_BASELINE
        ]
        yield (
            f"{rank:2} {values}  {trial.architecture:15} {trial.id:8} {trial.images:9,}  "
            f"{', '.join(remarks)}"
        )
    for trial in record.trials.values():
        if not trial.history:
            yield f" - {trial.architecture} {trial.id} {trial.status}: {trial.reason}"


def compare_trial(record: SearchRecord, trial: TrialRecord) -> list[Comparison]:
    """A trial beside the baselines, by the means over the evaluations of its objective."""
    means = {key: record.metric_mean(trial, key) for key in record.averaged_metrics(trial)}
    return compare(means, record.baselines, record.metric)


def _best_trial(record: SearchRecord) -> list[str]:
    """What the best trial beats, measure by measure."""
    if not (best := record.best) or not (comparisons := compare_trial(record, best)):
        return []
    note = [EDGES_NOTE] if needs_edges_note(comparisons) else []
    title = f"The best trial, {best.architecture} {best.id}:"
    return ["", title, *(f"  {comparison.sentence()}" for comparison in comparisons), *note]


def _baselines(record: SearchRecord) -> list[str]:
    """What the numbers compare with."""
    metric = record.metric
    values = {name: b[metric] for name, b in record.baselines.items() if metric in b}
    if not values:
        return []
    text = ", ".join(f"{display_name(name)} {_format(v)}" for name, v in values.items())
    return ["", f"Baselines, {metric}: {text}."]


def _no_final_ranking(record: SearchRecord) -> str:
    failed = [r for r in record.retrainings.values() if r.status in ("failed", "diverged")]
    if len(failed) < len(record.retrainings):
        return "No final ranking yet: finalists are still to be retrained with further seeds."
    return (
        f"No final ranking: all {len(failed)} retrainings of the finalists failed, the first one "
        f"because of {failed[0].reason}."
    )


def _final_ranking(record: SearchRecord, final: FinalRanking) -> list[str]:
    lines = [f"Final ranking, by the mean {final.objective} of further seeds on validation:"]
    for rank, entry in enumerate(final.ranking, start=1):
        tested = "; test " + ", ".join(
            f"{key} {_format_mean(value)}" for key, value in entry.test_metrics.items()
        )
        lines.append(
            f"{rank:2} {_format_mean(entry.objective)}  {entry.architecture} "
            f"{entry.finalist} ({len(entry.seeds)} seeds"
            + (f", {entry.failed} failed" if entry.failed else "")
            + f"){tested if entry.test_metrics else ''}"
        )
    generator = record.retrainings.get(final.generator)
    tested = generator.test_metrics if generator else {}
    if comparisons := compare(tested, record.test_baselines, record.metric):
        lines.append("The winner's generator on the test split:")
        lines += [f"  {comparison.sentence()}" for comparison in comparisons]
    if not final.winner.test_metrics:
        lines.append("The dataset has no test split: the winner is not tested on new recordings.")
    return lines


def _format_mean(value: MeanAndStd) -> str:
    return _format(value.mean) + ("" if value.std is None else f" +- {_format(value.std)}")


def _format(value: float) -> str:
    """Two decimals, or three significant digits of small values, such as KID."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
