"""How a search ended, in words."""

import shlex
from collections.abc import Iterator
from typing import Any

from thermal_search.evaluation.baselines import TRIVIAL_BASELINE
from thermal_search.tuning.record import SearchRecord


def describe(record: SearchRecord) -> str:
    """The ranking, best first, the baselines, the final_ranking, and the commands that come next."""
    output = shlex.quote(str(record.output))
    lines = list(_ranking(record))
    if any(trial.status == "running" for trial in record.trials.values()):
        lines.append(f"Not over: thermal-search search --output {output} --resume goes on.")
    if record.best is None:
        lines.append("No trial reached an evaluation; the reasons are above.")
        return "\n".join(lines)
    if record.objective.has_two_objectives:
        lines.append(f"The front is drawn in {record.output / 'front.png'}.")
    lines += _baselines(record)
    if record.final_ranking:
        lines += ["", *_final_ranking(record.final_ranking)]
    elif record.retrainings:
        lines += ["", _no_final_ranking(record)]
    what = "the winner of the final_ranking" if record.final_ranking else "the best generator"
    lines += [
        "",
        f"thermal-search ui {output}       # compare the trials",
        f"thermal-search export {output}   # {what}",
    ]
    return "\n".join(lines)


def _ranking(record: SearchRecord) -> Iterator[str]:
    names = [str(axis) for axis in record.objective.axes]
    columns = [(name, max(len(name), 9)) for name in names]
    heads = "  ".join(f"{name:>{width}}" for name, width in columns)
    yield f"{'':2} {heads}  {'architecture':15} {'trial':8} {'images':>9}  status"
    on_pareto_front = record.front()
    for place, trial in enumerate(record.ranking(), start=1):
        worth = zip(record.worth(trial), columns, strict=True)
        values = "  ".join(f"{_shown(value):>{width}}" for value, (_, width) in worth)
        remarks = [trial.status]
        if trial.id in on_pareto_front:
            remarks.append("on the front")
        if trial.beats_inverted_grey is False:
            remarks.append("does not beat inverted grey")
        yield (
            f"{place:2} {values}  {trial.architecture:15} {trial.id[-5:]:8} {trial.images:9,}  "
            f"{', '.join(remarks)}"
        )
    for trial in record.trials.values():
        if not trial.history:
            yield f" - {trial.architecture} {trial.id[-5:]} {trial.status}: {trial.reason}"


def _baselines(record: SearchRecord) -> list[str]:
    """What the numbers are to be read against."""
    metric = record.metric
    known = {
        name: baseline[metric] for name, baseline in record.baselines.items() if metric in baseline
    }
    if not known:
        return []
    words = ", ".join(f"{name.replace('_', ' ')} {_shown(value)}" for name, value in known.items())
    return ["", f"To compare, {metric} of: {words}."]


def _no_final_ranking(record: SearchRecord) -> str:
    broken = [f for f in record.retrainings.values() if f.status in ("failed", "diverged")]
    if len(broken) < len(record.retrainings):
        return "No final_ranking yet: finalists are still to be trained with further seeds."
    return (
        f"No final_ranking: all {len(broken)} trainings of the finalists with further seeds broke, the "
        f"first one by {broken[0].reason}."
    )


def _final_ranking(final_ranking: dict[str, Any]) -> list[str]:
    lines = [f"Verdict, by the mean {final_ranking['measure']} of further seeds on validation:"]
    for place, entry in enumerate(final_ranking["ranking"], start=1):
        tested = "; test " + ", ".join(
            f"{key} {_with_spread(value)}" for key, value in entry["test"].items()
        )
        lines.append(
            f"{place:2} {_with_spread(entry)}  {entry['architecture']} "
            f"{entry['configuration'][-5:]} ({len(entry['seeds'])} seeds"
            + (f", {entry['broken']} broke" if entry["broken"] else "")
            + f"){tested if entry['test'] else ''}"
        )
    if final_ranking["beats_inverted_grey"] is False:
        lines.append(
            f"On the test split the winner does not beat {TRIVIAL_BASELINE.replace('_', ' ')}."
        )
    if not final_ranking["test"]:
        lines.append("The dataset has no test split: the winner was not judged on new recordings.")
    return lines


def _with_spread(value: dict[str, Any]) -> str:
    spread = value["spread"]
    return _shown(value["mean"]) + ("" if spread is None else f" +- {_shown(spread)}")


def _shown(value: float) -> str:
    """Two decimals, or three significant digits of what is small, such as a kernel distance."""
    return f"{value:.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
