"""What travels from a slot's workers to Ray Tune. Plain data: no torch, no Ray."""

from dataclasses import dataclass, field
from typing import Literal

from thermal_search.evaluation.baselines import Baselines
from thermal_search.training.trial import TrialEvaluation

REPORT = "report"
"""The key of a TrialReport in the results of Ray Tune."""


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """One evaluation of a trial, or how the trial ended without one."""

    status: Literal["running", "completed", "diverged", "failed"]
    reason: str = ""
    """Why it diverged or failed."""

    evaluation: TrialEvaluation | None = None
    """None if the trial diverged or failed."""

    baselines: Baselines = field(default_factory=dict[str, dict[str, float]])
    """Baselines of the validation split."""

    test_metrics: dict[str, float] = field(default_factory=dict[str, float])
    """Metrics on the test split; only of a retraining that completed."""

    test_baselines: Baselines = field(default_factory=dict[str, dict[str, float]])
    """Baselines of the test split."""

    @property
    def is_last(self) -> bool:
        return self.status != "running"


@dataclass(frozen=True)
class SlotFailure:
    """The slot cannot train: its workers did not start, several times in a row."""

    reason: str
