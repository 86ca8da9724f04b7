"""The final_ranking of a search: finalists ranked by what further seeds of them are worth."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from thermal_search.evaluation.baselines import TRIVIAL_BASELINE
from thermal_search.tuning.record import RetrainingRecord, SearchRecord, TrialRecord


def finalists(record: SearchRecord, count: int) -> list[TrialRecord]:
    """The best configurations among the trials that used their whole budget: only these compare
    with a training that will."""
    whole = [trial for trial in record.ranking() if trial.status == "completed"]
    return whole[:count]


def decide(record: SearchRecord, retrainings: int) -> bool:
    """Writes the final_ranking down once so many retrainings have ended; False where there is none to give."""
    if len(record.retrainings) < retrainings or any(
        final.status == "running" for final in record.retrainings.values()
    ):
        return False
    record.final_ranking = evaluator(record)
    record.save()
    return record.final_ranking is not None


def told(record: SearchRecord) -> tuple[dict[str, float], dict[str, str]]:
    """The final_ranking as numbers and marks for the search's own MLflow run."""
    final_ranking = record.final_ranking
    assert final_ranking
    values = {"verdict_mean": final_ranking["mean"], "verdict_spread": final_ranking["spread"]}
    for key, value in final_ranking["test"].items():
        values |= {f"test_{key}": value["mean"], f"test_{key}_spread": value["spread"]}
    marks = {name: str(final_ranking[name]) for name in ("configuration", "architecture")}
    return (
        {name: value for name, value in values.items() if value is not None},
        {"final_ranking": final_ranking["generator"]}
        | {f"verdict_{k}": v for k, v in marks.items()},
    )


def evaluator(record: SearchRecord) -> dict[str, Any] | None:
    """The final_ranking over the finished retrainings; None where there is none to give.

    A configuration is ranked by the mean over its further seeds. The trial that made it a finalist
    does not count: it was chosen for being low, so its score flatters it. One that broke with a
    seed comes after those that did not. The test split has no say: it is read off the winner.
    """
    groups: dict[str, list[RetrainingRecord]] = {}
    for final in record.retrainings.values():
        groups.setdefault(final.configuration, []).append(final)
    ranking = [entry for group in groups.values() if (entry := _entry(record, group))]
    if not ranking:
        return None
    ranking.sort(key=lambda entry: (entry["broken"], entry["mean"]))
    winner = ranking[0]
    sound = [f for f in groups[winner["configuration"]] if f.status == "completed"]
    generator = min(sound, key=record.worth)
    baseline = record.test_baselines.get(TRIVIAL_BASELINE)
    beats = None
    if baseline and generator.test:
        values = record.objective.values(generator.test), record.objective.values(baseline)
        beats = values[0] < values[1]
    return {
        "configuration": winner["configuration"],
        "architecture": winner["architecture"],
        "generator": generator.id,
        "measure": str(record.objective.axes[0]),
        "mean": winner["mean"],
        "spread": winner["spread"],
        "test": winner["test"],
        "beats_inverted_grey": beats,
        "ranking": ranking,
    }


def _entry(record: SearchRecord, group: Sequence[RetrainingRecord]) -> dict[str, Any] | None:
    sound = [final for final in group if final.status == "completed"]
    if not sound:
        return None
    values = [record.worth(final)[0] for final in sound]
    tests = [final.test for final in sound if final.test]
    return {
        "configuration": sound[0].configuration,
        "architecture": sound[0].architecture,
        "seeds": [final.seed for final in sound],
        "broken": len(group) - len(sound),
        "values": values,
        "mean": statistics.fmean(values),
        "spread": _spread(values),
        "test": {key: _mean_and_std([test[key] for test in tests]) for key in _keys(tests)},
    }


def _keys(tests: Sequence[Mapping[str, float]]) -> list[str]:
    return list(tests[0]) if tests else []


def _mean_and_std(values: Sequence[float]) -> dict[str, float | None]:
    return {"mean": statistics.fmean(values), "spread": _spread(values)}


def _spread(values: Sequence[float]) -> float | None:
    """The standard deviation over seeds; one seed has none."""
    return statistics.stdev(values) if len(values) > 1 else None
