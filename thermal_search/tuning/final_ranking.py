"""The final ranking of a search: finalists by the objective of their retrainings."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from thermal_search.evaluation.baselines import TRIVIAL_BASELINE, Baselines
from thermal_search.tuning.objective import Objective
from thermal_search.tuning.summary import (
    FinalRanking,
    MeanAndStd,
    RankedFinalist,
    RetrainingRecord,
    TrialRecord,
)

ObjectiveValues = Callable[[TrialRecord], list[float]]
"""A trial's objective on each axis, as `SearchRecord.objective_values`."""


def rank_finalists(
    retrainings: Iterable[RetrainingRecord],
    objective: Objective,
    objective_values: ObjectiveValues,
    test_baselines: Baselines,
) -> FinalRanking | None:
    """The final ranking over retrainings that have ended; None if none of them completed.

    A finalist is ranked by the mean over its further seeds. The trial that made it a finalist does
    not count: it was chosen because it was low, which biases its objective. A finalist with failed
    retrainings comes after those without. The test split has no influence: it is only reported.
    """
    groups: dict[str, list[RetrainingRecord]] = {}
    for retraining in retrainings:
        groups.setdefault(retraining.finalist, []).append(retraining)
    ranking = [r for group in groups.values() if (r := _rank(group, objective_values))]
    if not ranking:
        return None
    ranking.sort(key=lambda ranked: (ranked.failed, ranked.objective.mean))
    winner = ranking[0]
    completed = [r for r in groups[winner.finalist] if r.status == "completed"]
    generator = min(completed, key=objective_values)
    return FinalRanking(
        finalist=winner.finalist,
        architecture=winner.architecture,
        generator=generator.id,
        objective=str(objective.axes[0]),
        beats_inverted_grey=_beats_inverted_grey(generator, objective, test_baselines),
        ranking=ranking,
    )


def mlflow_summary(ranking: FinalRanking) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics and tags for the search's own MLflow run."""
    winner = ranking.winner
    values = {
        "result/winner_mean": winner.objective.mean,
        "result/winner_std": winner.objective.std,
    }
    for key, value in winner.test_metrics.items():
        values |= {f"result/test_{key}": value.mean, f"result/test_{key}_std": value.std}
    tags = {
        "winner_generator": ranking.generator,
        "winner_finalist": ranking.finalist,
        "winner_architecture": ranking.architecture,
    }
    return {name: value for name, value in values.items() if value is not None}, tags


def _rank(
    group: Sequence[RetrainingRecord], objective_values: ObjectiveValues
) -> RankedFinalist | None:
    completed = [retraining for retraining in group if retraining.status == "completed"]
    if not completed:
        return None
    values = [objective_values(retraining)[0] for retraining in completed]
    tested = [r.test_metrics for r in completed if r.test_metrics]
    return RankedFinalist(
        finalist=completed[0].finalist,
        architecture=completed[0].architecture,
        seeds=[retraining.seed for retraining in completed],
        failed=len(group) - len(completed),
        values=values,
        objective=_mean_and_std(values),
        test_metrics={
            key: _mean_and_std([metrics[key] for metrics in tested])
            for key in (tested[0] if tested else ())
            if all(key in metrics for metrics in tested)
        },
    )


def _beats_inverted_grey(
    generator: RetrainingRecord, objective: Objective, test_baselines: Baselines
) -> bool | None:
    baseline = test_baselines.get(TRIVIAL_BASELINE)
    if not baseline or not generator.test_metrics:
        return None
    return objective.values(generator.test_metrics) < objective.values(baseline)


def _mean_and_std(values: Sequence[float]) -> MeanAndStd:
    std = statistics.stdev(values) if len(values) > 1 else None
    return MeanAndStd(mean=statistics.fmean(values), std=std)
