"""The shape of every search's summary.json."""

from typing import Any

KEYS = {
    "version", "metric", "features", "objective", "average_last", "protocol", "baselines",
    "test_baselines", "trials", "best", "pareto_front", "retrainings", "final_ranking",
}  # fmt: skip
TRIAL_KEYS = {
    "id", "architecture", "parameters", "history", "status", "reason", "images", "seconds",
    "checkpoint", "objective", "beats_inverted_grey",
}  # fmt: skip


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
