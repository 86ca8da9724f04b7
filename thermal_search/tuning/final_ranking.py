"""The final ranking of a search: finalists by the objective of their retrainings."""

import statistics
from collections.abc import Sequence

from thermal_search.evaluation.baselines import TRIVIAL_BASELINE
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.summary import (
    FinalRanking,
    MeanAndStd,
    RankedFinalist,
    RetrainingRecord,
    TrialRecord,
)


def finalists(record: SearchRecord, count: int) -> list[TrialRecord]:
    """The best `count` of the completed trials: only they compare with a full training."""
    completed = [trial for trial in record.ranking() if trial.status == "completed"]
    return completed[:count]


def finalize(record: SearchRecord, retrainings: int) -> bool:
    """Records the final ranking once that many retrainings have ended; False if there is none."""
    if len(record.retrainings) < retrainings or any(
        retraining.status == "running" for retraining in record.retrainings.values()
    ):
        return False
    record.final_ranking = rank_finalists(record)
    record.save()
    return record.final_ranking is not None


def rank_finalists(record: SearchRecord) -> FinalRanking | None:
    """The final ranking over the retrainings that have ended; None if none of them completed.

    A finalist is ranked by the mean over its further seeds. The trial that made it a finalist does
    not count: it was chosen because it was low, which biases its objective. A finalist with failed
    retrainings comes after those without. The test split has no influence: it is only reported.
    """
    groups: dict[str, list[RetrainingRecord]] = {}
    for retraining in record.retrainings.values():
        groups.setdefault(retraining.finalist, []).append(retraining)
    ranking = [ranked for group in groups.values() if (ranked := _rank(record, group))]
    if not ranking:
        return None
    ranking.sort(key=lambda ranked: (ranked.failed, ranked.objective.mean))
    winner = ranking[0]
    completed = [r for r in groups[winner.finalist] if r.status == "completed"]
    generator = min(completed, key=record.objective_values)
    return FinalRanking(
        finalist=winner.finalist,
        architecture=winner.architecture,
        generator=generator.id,
        objective=str(record.objective.axes[0]),
        beats_inverted_grey=_beats_inverted_grey_on_test(record, generator),
        ranking=ranking,
    )


def mlflow_summary(ranking: FinalRanking) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics and tags for the search's own MLflow run."""
    winner = ranking.winner
    values = {"winner_mean": winner.objective.mean, "winner_std": winner.objective.std}
    for key, value in winner.test_metrics.items():
        values |= {f"test_{key}": value.mean, f"test_{key}_std": value.std}
    tags = {
        "winner_generator": ranking.generator,
        "winner_finalist": ranking.finalist,
        "winner_architecture": ranking.architecture,
    }
    return {name: value for name, value in values.items() if value is not None}, tags


def _rank(record: SearchRecord, group: Sequence[RetrainingRecord]) -> RankedFinalist | None:
    completed = [retraining for retraining in group if retraining.status == "completed"]
    if not completed:
        return None
    values = [record.objective_values(retraining)[0] for retraining in completed]
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
        },
    )


def _beats_inverted_grey_on_test(record: SearchRecord, generator: RetrainingRecord) -> bool | None:
    baseline = record.test_baselines.get(TRIVIAL_BASELINE)
    if not baseline or not generator.test_metrics:
        return None
    objective = record.objective
    return objective.values(generator.test_metrics) < objective.values(baseline)


def _mean_and_std(values: Sequence[float]) -> MeanAndStd:
    std = statistics.stdev(values) if len(values) > 1 else None
    return MeanAndStd(mean=statistics.fmean(values), std=std)
