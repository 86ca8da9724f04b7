"""Where the budget of a search went: what was stopped, when and why, and what it cost."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from thermal_search.report.charts import number, seconds
from thermal_search.report.results import Results
from thermal_search.report.tables import FOLD_AFTER, Table
from thermal_search.tuning.summary import TrialRecord

SHADES = 4


@dataclass(frozen=True)
class Cell:
    text: str
    shade: int
    """0 .. SHADES: the share of the row's trials."""


@dataclass(frozen=True)
class Endings:
    """How many trials of each architecture ended when."""

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]


def endings(results: Results) -> Endings:
    """How many trials of each architecture completed, stopped at each part of their budgets, and so
    on."""
    trials = results.record.trials.values()
    stops = sorted({_percent(trial) for trial in trials if trial.status == "stopped"})
    present = {trial.status for trial in trials}
    others = [
        status for status in ("diverged", "failed", "interrupted", "running") if status in present
    ]
    columns = ["trials", "completed", *(f"stopped at {at} %" for at in stops), *others]
    rows: list[tuple[str, Sequence[Cell]]] = []
    for architecture in results.plan.architectures:
        mine = [trial for trial in trials if trial.architecture == architecture]
        counts = [sum(trial.status == "completed" for trial in mine)]
        counts += [sum(t.status == "stopped" and _percent(t) == at for t in mine) for at in stops]
        counts += [sum(trial.status == status for trial in mine) for status in others]
        cells = [Cell(str(len(mine)), 0)]
        for count in counts:
            shade = -(-SHADES * count // len(mine)) if mine else 0
            cells.append(Cell(str(count) if count else "", shade))
        rows.append((architecture, cells))
    return Endings(columns, rows)


def _percent(trial: TrialRecord) -> int:
    """How far a trial came, in percent of its budget."""
    return round(100 * trial.share)


def ended_early(results: Results) -> Table:
    """Trials that did not train for their whole budget: when, at which objective, and why."""
    record = results.record
    best_at: dict[tuple[str, int], float] = {}
    for trial in results.ranking:
        for count in range(1, len(trial.history) + 1):
            value = record.objective_after(trial, count)[0]
            key = trial.architecture, count
            best_at[key] = min(value, best_at.get(key, value))
    ended = [
        trial for trial in record.trials.values() if trial.status not in ("completed", "running")
    ]
    ended.sort(key=lambda trial: (trial.architecture, trial.images, trial.number))
    rows = [
        [
            trial.id,
            trial.architecture,
            trial.status,
            f"{trial.images:,}",
            seconds(trial.seconds),
            number(results.values[trial.id][0]) if trial.history else "",
            number(best_at[trial.architecture, len(trial.history)]) if trial.history else "",
            trial.reason,
        ]
        for trial in ended
    ]
    axis = results.axes[0]
    columns = ["trial", "architecture", "status", "images", "after", axis]
    columns += ["best then", "reason"]
    return Table(
        columns,
        rows,
        [trial.number for trial in ended],
        FOLD_AFTER,
        frozenset({3, 4, 5, 6}),
        wraps=True,
    )


def lineage(results: Results) -> Table:
    """Trials that continued from others, each time: from which, and why."""
    trials = sorted(results.record.trials.values(), key=lambda t: (t.architecture, t.number))
    events = [(trial, exploit) for trial in trials for exploit in trial.exploits]
    rows = [
        [
            trial.id,
            trial.architecture,
            f"{exploit.images:,}",
            number(exploit.value),
            exploit.donor,
            number(exploit.donor_value),
            " > ".join([*exploit.ancestors, trial.id]),
            exploit.reason,
        ]
        for trial, exploit in events
    ]
    axis = results.axes[0]
    columns = ["trial", "architecture", "images", axis, "continues from", f"its {axis}"]
    columns += ["weights trained by", "reason"]
    return Table(
        columns,
        rows,
        [trial.number for trial, _ in events],
        FOLD_AFTER,
        frozenset({2, 3, 5}),
        wraps=True,
    )


def cost(results: Results) -> Table:
    """Trials, images and seconds by architecture, and of all."""
    record = results.record
    rows: list[list[str]] = []
    everything = [*record.trials.values(), *record.retrainings.values()]
    total = sum(trial.seconds for trial in everything)

    def row(name: str, trials: Sequence[TrialRecord]) -> list[str]:
        time, images = _sums(trials)
        share = f"{100 * time / total:.0f} %" if total else ""
        speed = number(images / time) if time else ""
        return [name, f"{len(trials)}", f"{images:,}", seconds(time), share, speed]

    for architecture in results.plan.architectures:
        mine = [t for t in record.trials.values() if t.architecture == architecture]
        rows.append(row(architecture, mine))
    if record.retrainings:
        rows.append(row("retrainings", list(record.retrainings.values())))
    rows.append(row("all", everything))
    columns = ["", "trials", "images shown", "time", "share", "images/s"]
    return Table(columns, rows, numbers=frozenset({1, 2, 3, 4, 5}))


def _sums(trials: Iterable[TrialRecord]) -> tuple[float, int]:
    pairs = [(trial.seconds, trial.images) for trial in trials]
    return sum(time for time, _ in pairs), sum(images for _, images in pairs)


def cost_notes(results: Results) -> list[str]:
    """Sentences on machine-hours, and on what early stopping saved."""
    record, plan = results.record, results.plan
    time, _ = _sums([*record.trials.values(), *record.retrainings.values()])
    hours = time / 3600
    text = f"{number(hours)} hours of one slot"
    if plan.workers > 1:
        text += f", {number(hours * plan.workers)} hours of its {plan.workers} workers"
    if plan.requested_gpus:
        text += f", {number(hours * plan.workers * plan.requested_gpus)} GPU-hours"
    notes = [
        f"Machine time: {text}. Training and evaluation until the last evaluation of each trial "
        "count; starting the machines and what was trained after that do not."
    ]
    stopped = [trial for trial in record.trials.values() if trial.status == "stopped"]
    if stopped:
        shown = sum(trial.images for trial in stopped)
        full = sum(trial.budget.images for trial in stopped)
        notes.append(
            f"Early stopping ended {len(stopped)} trials after {shown:,} of their {full:,} images: "
            f"{100 * (1 - shown / full):.0f} % of their training was saved."
        )
    return notes


def settings(results: Results) -> Table:
    """How the search was set up and how its metrics are measured."""
    plan = results.plan
    values: dict[str, object] = {
        "objective": plan.objective,
        "averaged": f"last {plan.average_last} evaluations",
        "architectures": ", ".join(plan.architectures),
        "trials": "as many as fit the hours" if plan.is_open_ended else plan.trials,
        "hours": plan.hours or "",
        "budget of a trial": plan.budget_text,
        "scheduler": plan.scheduler,
        "compared every": f"{plan.perturb_every} evaluations" if plan.scheduler == "pbt" else "",
        "reduction factor": plan.reduction if plan.scheduler in ("asha", "hyperband") else "",
        "sampler": plan.sampler,
        "seed": plan.seed,
        "finalists": f"{plan.finalists}, {plan.seeds} further seeds each" if plan.finalists else 0,
        "fixed": ", ".join(plan.fix),
        "narrowed": ", ".join(plan.narrow),
        "dataset": f"{plan.data.name}, digest {plan.dataset_digest[:12]}",
        **{f"protocol: {name}": value for name, value in plan.protocol.items()},
    }
    rows = [[name, str(value)] for name, value in values.items() if value != ""]
    return Table(["setting", "value"], rows, wraps=True)
