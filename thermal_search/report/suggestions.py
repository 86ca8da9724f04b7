"""What to try next: each suggestion follows from the results by a rule, and says which."""

import math
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import search_spaces
from thermal_search.evaluation.comparison import display_name
from thermal_search.report.charts import number
from thermal_search.storage import Location
from thermal_search.tuning.analysis import Analysis, Parameter
from thermal_search.tuning.budgets import DEFAULT_COMPUTE
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.ranking_text import compare_trial
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

STILL_FALLING = 0.05
"""A trial that improved by this fraction in the last third of its budget was not done."""

LATE = 0.75
"""A best trial after this fraction of the trials: the sampler was still finding better ones."""

MANY_DIVERGED = 0.5
EDGE = 0.1
"""The outer part of a parameter's range, at either end."""

MIN_AT_EDGE = 5
"""As many of the best trials must agree."""


@dataclass(frozen=True)
class Suggestion:
    title: str
    why: str
    """The rule and its numbers."""

    command: str = ""


def suggest(
    record: SearchRecord, analyses: Mapping[str, Analysis], *, is_running: bool
) -> list[Suggestion]:
    """What the results suggest, the most urgent first."""
    return [
        *_finish(record, is_running),
        *_compare_with_baselines(record),
        *_use_best(record),
        *_retrain(record),
        *_separate_finalists(record),
        *_train_longer(record),
        *_propose_more(record),
        *_fix_failures(record),
        *_widen_ranges(record, analyses),
        *_add_architectures(record),
    ]


def _finish(record: SearchRecord, is_running: bool) -> Iterator[Suggestion]:
    if is_running:
        yield Suggestion(
            "Wait for the end of the search",
            "It is running, and this page shows it as it was at the time above.",
            f"thermal-search report {_quote(record.output)}",
        )
        return
    trials = [*record.trials.values(), *record.retrainings.values()]
    left = sum(trial.status in UNFINISHED for trial in trials)
    is_over = record.plan.is_open_ended or record.has_every_trial
    missing = 0 if is_over else record.plan.trials - len(record.trials)
    is_waiting = missing > 0 or not record.has_every_trial
    if left or is_waiting or not record.has_every_retraining:
        parts = [f"{left} trials have not ended"] if left else []
        if is_waiting and not missing:
            parts.append("its hours are not over")
        parts += [f"{missing} of {record.plan.trials} trials have not begun"] if missing > 0 else []
        yield Suggestion(
            "Resume the search",
            (" and ".join(parts) or "The finalists are not all trained again") + ".",
            _resume(record),
        )


def _compare_with_baselines(record: SearchRecord) -> Iterator[Suggestion]:
    best = record.best
    if best is None:
        return
    worse = [c for c in compare_trial(record, best) if not c.better]
    if worse:
        names = " and ".join(display_name(comparison.baseline) for comparison in worse)
        yield Suggestion(
            "Do not use the best generator yet",
            f"It beats {names} in no measure, and these need no training. Train for more images, "
            "or check the alignment of the pairs in the dataset's preview.png.",
        )


def _use_best(record: SearchRecord) -> Iterator[Suggestion]:
    if not (best := record.best):
        return
    final = record.final_ranking
    which = f"retraining {final.generator}" if final else f"{best.architecture} {best.id}"
    yield Suggestion(
        "Export the best generator, and look at what it generates",
        f"It is that of {which}. Numbers do not show everything: look at images that "
        "no training has seen.",
        f"thermal-search export {_quote(record.output)}\n"
        f"thermal-search translate {_quote(record.output / 'generator')} RGB_FOLDER THERMAL_FOLDER",
    )


def _retrain(record: SearchRecord) -> Iterator[Suggestion]:
    completed = sum(trial.status == "completed" for trial in record.trials.values())
    is_ended = record.has_every_trial
    if record.plan.finalists or record.objective.has_two_objectives or not is_ended:
        return
    if completed >= 2:
        finalists = min(3, completed)
        yield Suggestion(
            "Train the best configurations again with further seeds",
            f"The best of {completed} completed trials was chosen because its objective was the "
            "lowest, so that number is optimistic. Retrainings give a mean, a standard deviation "
            "and the metrics on the test split.",
            _resume(record, f"--finalists {finalists}"),
        )


def _separate_finalists(record: SearchRecord) -> Iterator[Suggestion]:
    final = record.final_ranking
    if not final or len(final.ranking) < 2:
        return
    first, second = final.ranking[0].objective, final.ranking[1].objective
    spread = max(first.std or 0.0, second.std or 0.0)
    if second.mean - first.mean < spread:
        seeds = record.plan.seeds
        yield Suggestion(
            "Train the finalists with more seeds",
            f"The two best finalists differ by {number(second.mean - first.mean)}, less than the "
            f"standard deviation over {seeds} seeds, {number(spread)}: which one is better is not "
            "decided.",
            _resume(record, f"--seeds {seeds + 3}"),
        )


def _train_longer(record: SearchRecord) -> Iterator[Suggestion]:
    best = record.best
    if best is None or best.status != "completed" or len(best.history) < 3:
        return
    values = [record.objective.values(item.metrics)[0] for item in best.history]
    budget = best.images
    before = [v for v, e in zip(values, best.history, strict=True) if e.images <= 2 * budget / 3]
    if not before:
        return
    earlier, last = min(before), values[-1]
    if earlier > 0 and last == min(values) and last < (1 - STILL_FALLING) * earlier:
        yield Suggestion(
            f"Train {best.architecture} for longer",
            f"The best trial was still improving when its budget ended: from {number(earlier)} at "
            f"two thirds of it to {number(last)}.",
            _new_search(record, (best.architecture,), "longer", times=2),
        )


def _propose_more(record: SearchRecord) -> Iterator[Suggestion]:
    best = record.best
    if best is None or not record.has_every_trial or len(record.trials) < 10:
        return
    published = record.plan.search_space().published(best.architecture)
    if best.parameters == published.parameters:
        why = (
            f"The best trial is the published point of {best.architecture}: none of the "
            f"{len(record.trials)} trials has found better hyperparameters."
        )
    elif best.number >= LATE * len(record.trials):
        why = (
            f"The best trial is number {best.number + 1} of {len(record.trials)}: the sampler was "
            "still finding better ones."
        )
    else:
        return
    yield Suggestion("Continue with more trials", why, _resume(record, *_grown(record.plan, 2.0)))


def _fix_failures(record: SearchRecord) -> Iterator[Suggestion]:
    by_architecture: dict[str, list[TrialRecord]] = {}
    for trial in record.trials.values():
        by_architecture.setdefault(trial.architecture, []).append(trial)
    for architecture, trials in by_architecture.items():
        memory = [t for t in trials if t.status == "failed" and "out of memory" in t.reason]
        if memory:
            sizes = [s for t in memory if isinstance(s := t.parameters.get("batch_size"), int)]
            yield Suggestion(
                f"Give {architecture} less to hold in memory",
                f"{len(memory)} of its {len(trials)} trials ran out of memory"
                + (f", with batch sizes from {min(sizes)}" if sizes else "")
                + ". Fix a smaller batch size in a new search, or use machines with more memory.",
                _new_search(record, (architecture,), "smaller", f"{architecture}.batch_size=1")
                if sizes and min(sizes) > 1
                else "",
            )
        diverged = sum(trial.status == "diverged" for trial in trials)
        if len(trials) >= 4 and diverged >= MANY_DIVERGED * len(trials):
            yield Suggestion(
                f"Narrow the space of {architecture}",
                f"{diverged} of its {len(trials)} trials diverged: lower the upper end of its "
                "learning rates with --narrow, or fix one with --fix.",
            )
        failed = [t for t in trials if t.status == "failed" and t not in memory]
        if failed:
            reason, count = Counter(trial.reason for trial in failed).most_common(1)[0]
            yield Suggestion(
                f"Find out why trials of {architecture} failed",
                f"{len(failed)} of its {len(trials)} trials failed, {count} of them with: {reason}",
            )


def _widen_ranges(record: SearchRecord, analyses: Mapping[str, Analysis]) -> Iterator[Suggestion]:
    best = record.best
    if best is None or best.architecture not in analyses:
        return
    ranked = [t.id for t in record.ranking() if t.architecture == best.architecture]
    if len(ranked) < 2 * MIN_AT_EDGE:
        return
    count = max(MIN_AT_EDGE, len(ranked) // 5)
    for parameter in analyses[best.architecture].parameters:
        edge = _edge(parameter, ranked[:count])
        # If the others are there too, the best say nothing.
        if edge and _edge(parameter, ranked[count:]) != edge:
            yield Suggestion(
                f"Widen the range of {parameter.name} of {best.architecture}",
                f"The {count} best trials have it in the {edge} tenth of its range, "
                f"{parameter.low:g} to {parameter.high:g}: better values may lie outside. Widen "
                f"it in a copy of search_spaces/{best.architecture}.py, and pass that with --space "
                "to a new search.",
            )


def _edge(parameter: Parameter, trials: Sequence[str]) -> str:
    """The end of the range that all these trials are at, if it could be moved; else empty."""
    if parameter.choices:
        return ""
    positions = [_position(parameter, parameter.values[t]) for t in trials if t in parameter.values]
    if len(positions) < MIN_AT_EDGE:
        return ""
    # Counts end at 1, and fractions at 0 and 1.
    if parameter.is_log and all(position <= EDGE for position in positions):
        return "lower"
    if parameter.high != 1 and all(position >= 1 - EDGE for position in positions):
        return "upper"
    return ""


def _position(parameter: Parameter, value: float) -> float:
    """Where in the range a value is, from 0 to 1."""
    low, high = parameter.low, parameter.high
    if parameter.is_log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _add_architectures(record: SearchRecord) -> Iterator[Suggestion]:
    others = [n for n in search_spaces.names() if n not in record.plan.architectures]
    if not others or not record.has_every_trial or record.best is None:
        return
    plan = record.plan
    grown = _grown(plan, 1 + len(others) / len(plan.architectures))
    yield Suggestion(
        f"Search the other {len(others)} architectures",
        f"Of {len(others) + len(plan.architectures)}, this search has tried "
        f"{len(plan.architectures)}. The others are {', '.join(others)}.",
        _resume(record, "--architectures all", *grown),
    )


def _grown(plan: SearchPlan, times: float) -> list[str]:
    """Flags for so many times as many trials, or hours."""
    flags = [f"--hours {plan.hours * times:.4g}"] if plan.hours else []
    if not plan.is_open_ended:
        trials = round(plan.trials * times)
        flags.append(f"--trials {max(trials, plan.trials + 1)}")
    return flags


def _resume(record: SearchRecord, *flags: str) -> str:
    return " ".join(["thermal-search search --output", _quote(record.output), "--resume", *flags])


def _new_search(
    record: SearchRecord,
    architectures: Sequence[str],
    suffix: str,
    *fix: str,
    times: int = 1,
) -> str:
    """A search like this one in another folder, with some settings changed.

    Args:
        times: how many times as large the budget of a trial is.
    """
    plan = record.plan
    changed = {text.partition("=")[0] for text in fix}
    kept = [f for f in plan.fix if f.split(".")[0] in architectures]
    changes = {
        "output": record.output.parent / f"{record.output.name}-{suffix}",
        "architectures": tuple(architectures),
        **_budget(plan, times),
        "trials": None
        if plan.is_open_ended
        else max(plan.trials // len(plan.architectures), 10) * len(architectures),
        "fix": (*(f for f in kept if f.partition("=")[0] not in changed), *fix),
        # Decided again by the new search, or by its machines.
        "average_last": None,
        "finalists": None,
        "slots": None,
    }
    words = ["thermal-search search"]
    for name, field in SearchSettings.model_fields.items():
        value = changes.get(name, getattr(plan, name))
        if value is None or value == field.default:
            continue
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        words.append(
            f"--{name.replace('_', '-')}" + ("" if value is True else f" {shlex.quote(text)}")
        )
    return " ".join(words)


def _budget(plan: SearchPlan, times: int) -> dict[str, object]:
    """The settings of a budget that is so many times as large."""
    if plan.images:
        images = times * plan.images
        return {"images": images, "evaluate_every": times * plan.evaluate_every}
    if plan.is_calibrated and plan.hours:
        return {"hours": times * plan.hours, "evaluate_every": None}
    return {"compute": times * (plan.compute or DEFAULT_COMPUTE), "evaluate_every": None}


def _quote(location: Location) -> str:
    return shlex.quote(str(location))
