"""What was searched, what won and what comes next: the Markdown description in MLflow."""

import shlex

from thermal_search.evaluation.comparison import display_name
from thermal_search.markdown import table
from thermal_search.tuning.logged_metrics import objective_sentence
from thermal_search.tuning.ranking_text import compare_trial
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.summary import UNFINISHED, MeanAndStd, TrialRecord

SHOWN_TRIALS = 10


def search_note(record: SearchRecord) -> str:
    """The description of a search as it is now."""
    parts = [_searched(record), _ranking(record), _final_ranking(record), _baselines(record)]
    return "\n\n".join(part for part in [*parts, _next(record)] if part)


def _searched(record: SearchRecord) -> str:
    plan = record.plan
    ended = sum(trial.status not in UNFINISHED for trial in record.trials.values())
    sentence = objective_sentence(record.objective, plan.average_last)
    return (
        f"**{plan.trials_text} trials** of {', '.join(plan.architectures)} on `{plan.data.name}`, "
        f"{plan.budget_text}; {ended} have ended.\n\n**Objective:** {sentence}."
    )


def _ranking(record: SearchRecord) -> str:
    ranking = record.ranking()
    if not ranking:
        return ""
    names = [f"`{axis}`" for axis in record.objective.axes]
    rows: list[list[str]] = []
    for rank, trial in enumerate(ranking[:SHOWN_TRIALS], start=1):
        values = [_number(value) for value in record.objective_values(trial)]
        cells = [str(rank), trial.id, trial.architecture, *values, f"{trial.images:,}"]
        rows.append([*cells, trial.status])
    lines = table(["", "trial", "architecture", *names, "images", "status"], rows)
    if (more := len(ranking) - SHOWN_TRIALS) > 0:
        lines.append(f"\nand {more} more.")
    return "\n".join(["### Ranking", "", *lines, *_best(record, ranking[0])])


def _best(record: SearchRecord, best: TrialRecord) -> list[str]:
    if not (comparisons := compare_trial(record, best)):
        return []
    items = [f"- {comparison.sentence()}" for comparison in comparisons]
    return ["", f"The best trial, {best.architecture} {best.id}:", "", *items]


def _final_ranking(record: SearchRecord) -> str:
    if not (final := record.final_ranking):
        return ""
    keys = list(final.winner.test_metrics)[:4]
    heads = ["", "finalist", "architecture", f"`{final.objective}`", "seeds"]
    rows: list[list[str]] = []
    for rank, entry in enumerate(final.ranking, start=1):
        cells = [str(rank), entry.finalist, entry.architecture, _mean(entry.objective)]
        tested = [_mean(entry.test_metrics[key]) for key in keys if key in entry.test_metrics]
        rows.append([*cells, str(len(entry.seeds)), *tested])
    lines = table([*heads, *(f"test `{key}`" for key in keys)], rows)
    title = "### Final ranking, over further seeds"
    return "\n".join([title, "", *lines, "", f"`export` writes {final.generator}."])


def _baselines(record: SearchRecord) -> str:
    keys = list(dict.fromkeys([record.metric, *sorted(record.objective.keys), "l1", "psnr"]))
    if not record.baselines:
        return ""
    rows: list[list[str]] = []
    for name, metrics in record.baselines.items():
        values = [_number(metrics[key]) if key in metrics else "" for key in keys]
        rows.append([display_name(name), *values])
    lines = table(["baseline", *(f"`{key}`" for key in keys)], rows)
    return "\n".join(["### Baselines, without training", "", *lines])


def _next(record: SearchRecord) -> str:
    output = shlex.quote(record.plan.output.name)
    commands = [
        f"thermal-search export {output}",
        f"thermal-search translate {output}/generator RGB_FOLDER THERMAL_FOLDER",
    ]
    if not record.has_every_trial:
        commands.insert(0, f"thermal-search search --output {output} --resume")
    return "\n".join(["### Next", "", "```", *commands, "```"])


def _mean(value: MeanAndStd) -> str:
    return _number(value.mean) + ("" if value.std is None else f" +- {_number(value.std)}")


def _number(value: float) -> str:
    return f"{value:.4g}"
