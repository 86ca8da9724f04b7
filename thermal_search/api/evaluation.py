"""`ts.evaluate`."""

from typing import Any

from thermal_search.api import Place
from thermal_search.choices import EvaluationSplit
from thermal_search.evaluation.command import EvaluationRequest
from thermal_search.evaluation.command import evaluate as run_evaluation
from thermal_search.evaluation.report import EvaluationReport
from thermal_search.storage import Location
from thermal_search.tuning.settings import EvaluationSettings


def evaluate(
    model: Place,
    data: Place,
    *,
    split: EvaluationSplit = "val",
    workers: int = 1,
    **metrics: Any,
) -> EvaluationReport:
    """Evaluates an exported generator on a dataset with every metric.

    Args:
        model: a folder that `export` wrote.
        data: a prepared dataset of the same size and kind of thermal images.
        workers: number of processes.
        metrics: fields of `EvaluationSettings`, such as `features="efficientnet-lite0"`.

    Returns `metrics` by key (`fid`, `kid`, `l1` in gray levels 0 .. 255, `psnr` in dB, `ssim`),
    those of the `baselines`, and the `protocol`. Raises DatasetError, MetricError, SearchError or
    WeightsUnavailable if it cannot be evaluated.
    """
    chosen = EvaluationSettings(**metrics)
    return run_evaluation(
        EvaluationRequest(
            model=Location.of(model),
            data=Location.of(data),
            split=split,
            workers=workers,
            **dict(chosen),
        )
    )
