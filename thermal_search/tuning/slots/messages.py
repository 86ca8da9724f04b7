"""What travels between Ray Tune and a slot's workers. Plain data: no torch, no Ray."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from thermal_search.training.trial_plan import Course, TrialBudget, TrialEvaluation

REPORT = "report"
"""The key of a TrialReport in the results of Ray Tune."""

START_FAILURE = "start_failure"
"""The key of a StartFailure there."""


@dataclass(frozen=True)
class TrialConfig:
    """What a trial trains."""

    architecture: str
    parameters: Mapping[str, Any]
    seed: int | None = None
    """The seed of a retraining; None for the search's seed."""

    budget: TrialBudget | None = None
    """None until it is fixed, which is before the trial starts."""

    course: Course | None = None
    """How `parameters` change while it trains; None if they do not."""

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "TrialConfig":
        """From the config of a trial of Ray Tune."""
        return cls(
            config["architecture"],
            config["parameters"],
            config["seed"],
            config["budget"],
            config.get("course"),
        )

    def to_tune(self) -> dict[str, Any]:
        """The config of a trial of Ray Tune."""
        config = {
            "architecture": self.architecture,
            "parameters": dict(self.parameters),
            "seed": self.seed,
            "budget": self.budget,
        }
        return config | {"course": self.course} if self.course else config


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """One evaluation of a trial, or how the trial ended without one."""

    status: Literal["running", "completed", "diverged", "failed", "interrupted"]
    reason: str = ""
    """Why it diverged, failed or was interrupted."""

    stops_search: bool = False
    """Whether what interrupted it would interrupt any other trial, such as a full disk."""

    evaluation: TrialEvaluation | None = None
    """None if the trial diverged, failed or was interrupted."""

    baselines: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Baselines of the validation split."""

    test_metrics: dict[str, float] = field(default_factory=dict[str, float])
    """Metrics on the test split; only of a retraining that completed."""

    test_baselines: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    """Baselines of the test split."""

    start: tuple[int, int] | None = None
    """Tensors that it has taken over from `--start-from`, and those left out; None without."""

    @property
    def is_last(self) -> bool:
        return self.status != "running"


@dataclass(frozen=True)
class StartFailure:
    """A worker group of the slot could not get ready, and another one starts."""

    reason: str


@dataclass(frozen=True)
class SlotFailure:
    """The slot cannot train: its workers did not start, several times in a row."""

    reason: str
