"""The record of a search as the tables and texts of the page."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from thermal_search.evaluation.baselines import Baselines
from thermal_search.evaluation.comparison import (
    EDGES_NOTE,
    Comparison,
    compare,
    display_name,
    needs_edges_note,
)
from thermal_search.metrics import suffix_of
from thermal_search.report.charts import number, seconds
from thermal_search.report.results import Results
from thermal_search.report.tables import FOLD_AFTER, Table
from thermal_search.tuning.ranking_text import compare_trial
from thermal_search.tuning.summary import (
    UNFINISHED,
    MeanAndStd,
    RankedFinalist,
    TrialRecord,
)

MEASURES = ("l1", "psnr", "ssim", "lpips")
"""Metrics that tables show after the Frechet distance and KID, if they are measured."""


@dataclass(frozen=True)
class Tile:
    """A number that a reader sees first."""

    name: str
    value: str
    note: str


def tiles(results: Results) -> list[Tile]:
    record, best = results.record, results.best
    trials = record.trials.values()
    ended = sum(trial.status not in UNFINISHED for trial in trials)
    states = Counter(trial.status for trial in trials)
    found: list[Tile] = []
    if final := results.final_ranking:
        found.append(
            Tile(
                f"Winner, {final.objective}",
                mean_and_std(final.winner.objective),
                f"{final.architecture}, trial {final.finalist}, "
                f"mean of {len(final.winner.seeds)} further seeds",
            )
        )
    if best:
        for index, axis in enumerate(results.axes):
            # With two objectives, the lowest of each is on the Pareto front.
            competing = results.pareto_front or [best.id]
            value, id = min((results.values[id][index], id) for id in competing)
            lowest = record[id]
            found.append(
                Tile(f"Best trial, {axis}", number(value), f"{lowest.architecture}, trial {id}")
            )
        if results.pareto_front:
            found.append(Tile("Pareto front", str(len(results.pareto_front)), "trials"))
        if comparisons := compare_trial(record, best):
            grey = comparisons[0]
            better, total = len(grey.better), len(grey.better) + len(grey.not_better)
            found.append(
                Tile(
                    f"Against {display_name(grey.baseline)}",
                    f"{better} of {total}",
                    f"measures better: {grey.measures}",
                )
            )
    planned = len(trials) if results.plan.is_open_ended else results.plan.trials
    counts = ", ".join(f"{count} {status}" for status, count in states.most_common())
    found.append(Tile("Trials", f"{ended} of {planned}", counts or "none has begun"))
    total = sum(t.seconds for t in (*trials, *record.retrainings.values()))
    found.append(Tile("Training time", seconds(total), "the sum over trials and retrainings"))
    return found


def metric_columns(results: Results) -> list[str]:
    """Keys of the metrics in tables: the axes of the objective come first, under their names."""
    metric = results.record.metric
    wanted = [metric, f"kid{suffix_of(metric)}", *MEASURES]
    best = results.best
    measured = best.history[-1].metrics if best else {}
    return [key for key in wanted if key in measured and key not in results.axes]


def ranking(results: Results) -> Table:
    """Every evaluated trial, best first, with the measures in which it beats each baseline."""
    record, keys = results.record, metric_columns(results)
    baselines = [c.baseline for c in _comparisons(results, results.best)]
    columns = ["", *results.axes, *keys, "architecture", "trial", "images", "time", "status"]
    columns += [f"beats {display_name(name)} in" for name in baselines]
    space = results.plan.search_space()
    published = {name: space.published(name).parameters for name in results.best_of_each}
    rows: list[list[str]] = []
    for rank, trial in enumerate(results.ranking, start=1):
        by_name = {c.baseline: c for c in _comparisons(results, trial)}
        remarks: list[str] = [trial.status]
        if trial.id in results.pareto_front:
            remarks.append("Pareto front")
        if trial.parameters == published[trial.architecture]:
            remarks.append("published point")
        rows.append(
            [
                str(rank),
                *map(number, results.values[trial.id]),
                *(number(record.metric_mean(trial, key)) for key in keys),
                trial.architecture,
                trial.id,
                f"{trial.images:,}",
                seconds(trial.seconds),
                ", ".join(remarks),
                *(_measures(by_name[name]) if name in by_name else "" for name in baselines),
            ]
        )
    count = len(results.axes) + len(keys)
    return Table(
        columns,
        rows,
        [trial.number for trial in results.ranking],
        FOLD_AFTER,
        frozenset({0, *range(1, count + 1), count + 3, count + 4}),
    )


def _measures(comparison: Comparison) -> str:
    count = len(comparison.better)
    return f"all {count}" if count > 1 and not comparison.not_better else comparison.measures


def _comparisons(results: Results, trial: TrialRecord | None) -> list[Comparison]:
    return compare_trial(results.record, trial) if trial else []


def best_trial(results: Results) -> list[str]:
    """Sentences on what the best trial beats, measure by measure."""
    comparisons = _comparisons(results, results.best)
    note = [EDGES_NOTE] if needs_edges_note(comparisons) else []
    return [*(comparison.sentence() for comparison in comparisons), *note]


def without_evaluation(results: Results) -> Table:
    """Trials that ended, or are, before their first evaluation."""
    trials = [trial for trial in results.record.trials.values() if not trial.history]
    rows = [[t.id, t.architecture, t.status, t.reason] for t in trials]
    return Table(
        ["trial", "architecture", "status", "reason"],
        rows,
        [trial.number for trial in trials],
        FOLD_AFTER,
        wraps=True,
    )


def baseline_table(results: Results, baselines: Baselines) -> Table:
    """The metrics of what needs no training."""
    metric = results.record.metric
    keys = [
        key
        for key in (metric, f"kid{suffix_of(metric)}", *MEASURES, "images")
        if any(key in metrics for metrics in baselines.values())
    ]
    rows = [
        [display_name(name), *(_metric(metrics, key) for key in keys)]
        for name, metrics in baselines.items()
    ]
    return Table(["baseline", *keys], rows, numbers=frozenset(range(1, len(keys) + 1)))


def _metric(metrics: Mapping[str, float], key: str) -> str:
    if key not in metrics:
        return ""
    return f"{metrics[key]:,.0f}" if key == "images" else number(metrics[key])


def mean_and_std(value: MeanAndStd) -> str:
    return number(value.mean) + ("" if value.std is None else f" ± {number(value.std)}")


def finalists(results: Results) -> Table | None:
    """The final ranking; None before it."""
    if not (final := results.final_ranking):
        return None
    keys = [
        key
        for key in (results.record.metric, *metric_columns(results), *_other_axes(results))
        if key in final.winner.test_metrics
    ]
    keys = list(dict.fromkeys(keys))

    def row(rank: int, entry: RankedFinalist) -> list[str]:
        seeds = f"{len(entry.seeds)}" + (f", {entry.failed} failed" if entry.failed else "")
        tested = [
            mean_and_std(entry.test_metrics[key]) if key in entry.test_metrics else ""
            for key in keys
        ]
        values = ", ".join(number(value) for value in entry.values)
        return [
            str(rank),
            mean_and_std(entry.objective),
            entry.architecture,
            entry.finalist,
            seeds,
            values,
            *tested,
        ]

    columns = ["", f"{final.objective}, mean ± std", "architecture", "trial", "seeds", "each seed"]
    columns += [f"test {key}" for key in keys]
    rows = [row(rank, entry) for rank, entry in enumerate(final.ranking, start=1)]
    trials = [results.record[entry.finalist].number for entry in final.ranking]
    return Table(columns, rows, trials, numbers=frozenset({0, 1, *range(6, 6 + len(keys))}))


def _other_axes(results: Results) -> Sequence[str]:
    return [key for axis in results.objective.axes for key in sorted(axis.keys)]


def winner_on_test(results: Results) -> list[str]:
    """Sentences on what the winner's generator beats on the test split."""
    final = results.final_ranking
    generator = results.record.retrainings.get(final.generator) if final else None
    tested = generator.test_metrics if generator else {}
    comparisons = compare(tested, results.record.test_baselines, results.record.metric)
    return [comparison.sentence() for comparison in comparisons]


def retrainings_note(results: Results) -> str:
    """Why there is no final ranking, in a sentence; empty if there is one."""
    record = results.record
    if results.final_ranking:
        return ""
    if not results.plan.finalists:
        return "This search retrains no finalists (--finalists 0)."
    ended = [r for r in record.retrainings.values() if r.status not in UNFINISHED]
    failed = [r for r in ended if r.status in ("failed", "diverged")]
    if record.retrainings and len(failed) == len(record.retrainings):
        return f"All {len(failed)} retrainings failed, the first one because of {failed[0].reason}."
    if not record.has_every_trial:
        return f"The best {results.plan.finalists} are retrained when every trial has ended."
    return f"{len(ended)} retrainings of the finalists have ended; the others have not."
