"""Searches for tests: their plans and records without training, and the shape of summary.json."""

from pathlib import Path
from typing import Any

from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.messages import TrialConfig, TrialReport
from thermal_search.tuning.summary import TrialRecord

KEYS = {
    "version", "metric", "features", "objective", "average_last", "protocol", "baselines",
    "test_baselines", "trials", "best", "pareto_front", "lineages", "retrainings", "final_ranking",
}  # fmt: skip
TRIAL_KEYS = {
    "id", "number", "architecture", "parameters", "history", "status", "reason", "images",
    "seconds", "checkpoint", "objective", "beats_inverted_grey", "budget", "start", "exploits",
}  # fmt: skip

SMALL = {
    "pix2pix": ("generator_width=32", "discriminator_width=32"),
    "cyclegan": ("generator_width=32", "discriminator_width=32", "blocks=3"),
    "dcgan": ("width=32", "max_width_multiplier=8", "batch_size=32"),
    "cgan": ("width=32",),
    "wgan": ("width=32",),
}
"""The smallest networks of some search spaces: training, states and uploads take less time."""


def small(*architectures: str) -> tuple[str, ...]:
    """--fix for searches of small networks."""
    return tuple(f"{name}.{value}" for name in architectures for value in SMALL[name])


def assert_is_complete(summary: dict[str, Any], *, trials: int, images: int) -> None:
    """A search that has ended, of `trials` trials with a budget of `images` images each."""
    assert set(summary) == KEYS
    assert summary["metric"] == "fd_efficientnet_lite0"
    assert len(summary["trials"]) == trials
    for trial in summary["trials"]:
        assert set(trial) == TRIAL_KEYS
        assert trial["status"] in ("completed", "stopped", "diverged")
        shown = [item["images"] for item in trial["history"]]
        assert shown == sorted(set(shown))
        assert trial["status"] != "completed" or shown[-1] >= images
        if shown:
            assert trial["checkpoint"] == f"trials/{trial['id']}/generator.pt"
    assert summary["best"] in {trial["id"] for trial in summary["trials"]}


def started_plan(output: Path | Location, **changes: Any) -> SearchPlan:
    """The plan of a search that has begun, saved in its output folder."""
    settings = {"data": Path("data"), "architectures": ("pix2pix",), "average_last": 1}
    settings |= {"images": 200_000} | changes
    plan = plan_from_settings(SearchSettings(output=output, **settings))
    plan = plan.started_on("digest", {"images": 9})
    plan.save()
    return plan


def record_of(output: Path | Location, **changes: Any) -> SearchRecord:
    """The empty record of a search that has begun."""
    return SearchRecord.of(started_plan(output, **changes))


def evaluate(
    record: SearchRecord,
    id: str,
    *values: float | dict[str, float],
    baselines: dict[str, Any] | None = None,
    test: float | None = None,
) -> None:
    """Adds one evaluation per value to a trial: an FID, or a mapping of metrics."""
    for value in values:
        number = len(record[id].history) + 1
        evaluation = TrialEvaluation(
            images=number,
            metrics=value if isinstance(value, dict) else {"fid": value},
            losses={},
            seconds=1.0,
            images_per_second=1.0,
            grid=None,
        )
        is_tested = test is not None and value is values[-1]
        report = TrialReport(
            status="running",
            evaluation=evaluation,
            baselines=baselines or {},
            test_metrics={"fid": test, "l1": 1.0} if is_tested else {},
            test_baselines={"inverted_grey": {"fid": 31.0, "l1": 0.5}} if is_tested else {},
        )
        record.add_evaluation(id, report)


def run_trial(
    record: SearchRecord,
    *values: float | dict[str, float],
    status: Any = "completed",
    architecture: str = "pix2pix",
    **settings: Any,
) -> TrialRecord:
    """A new trial with these evaluations, which then ends."""
    trial = record.add(len(record.trials), TrialConfig(architecture, {"batch_size": 4}))
    evaluate(record, trial.id, *values, **settings)
    if status != "running":
        record.end(trial.id, status, "")
    return trial
