"""What a trial trains, and what an evaluation finds: plain data, for processes without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from thermal_search.choices import Precision
from thermal_search.storage import Location


@dataclass(frozen=True)
class StartingPoint:
    """The exported generator that trials of its architecture begin from."""

    model: Location
    architecture: str
    digest: str
    """`generator.Weights.digest` of its weights when the search began."""


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What one trial trains, for how long, and where it saves its state."""

    id: str
    architecture: str
    parameters: Mapping[str, object]
    """Fields of the architecture's Config; the others have their defaults."""

    folder: Location
    """For its checkpoints and image grids; every worker can write to it."""

    images: int
    """The full budget, in images shown by all workers together."""

    evaluate_every: int
    """Images shown between two evaluations."""

    seed: int = 0
    precision: Precision = "auto"
    start_from: StartingPoint | None = None

    @property
    def applicable_start(self) -> StartingPoint | None:
        """What this trial starts from; None if that is a generator of another architecture."""
        start = self.start_from
        return start if start and start.architecture == self.architecture else None

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Location.of(self.folder))


TEST_GRID = "test.png"
"""The image grid of the test split, in a retraining's folder."""


def grid_name(images: int) -> str:
    """The file of an evaluation's image grid, in the trial's folder."""
    return f"images-{images:08d}.png"


@dataclass
class TrialEvaluation:
    """One evaluation of a trial, as it is reported to Ray Tune and kept in the history."""

    images: int
    """Images shown so far."""

    metrics: dict[str, float]
    """By key, as in `EvaluationResult`."""

    losses: dict[str, float]
    """Means of the loss terms since the previous evaluation, by `player/term`."""

    seconds: float
    """Time spent on training and evaluation so far."""

    images_per_second: float
    """Speed of training since the previous evaluation."""

    grid: str | None
    """The image grid's file name in the trial's folder."""

    system: dict[str, float] = field(default_factory=dict[str, float])
    """What the workers have used since the previous evaluation, as `SystemMeter` measures it."""
