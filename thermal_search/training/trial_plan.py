"""What a trial trains, and what an evaluation finds: plain data, for processes without torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from thermal_search.choices import Precision
from thermal_search.storage import Location

MAX_IMAGES = 10**15
"""No budget has more: a file that says so is damaged."""


@dataclass(frozen=True)
class StartingPoint:
    """The exported generator that trials of its architecture begin from."""

    model: Location
    architecture: str
    digest: str
    """`generator.Weights.digest` of its weights when the search began."""


@dataclass(frozen=True, kw_only=True)
class TrialBudget:
    """How long a trial trains. Fixed before its first step: schedules and growth follow from it."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}
    """A part of kept files, which are read strictly."""

    images: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    """To show, by all workers together."""

    evaluate_every: Annotated[int, Field(ge=1, le=MAX_IMAGES)]
    """Images shown between two evaluations."""

    full_size_from: Annotated[int, Field(ge=0, le=MAX_IMAGES)] = 0
    """Images after which growing networks have their full size; 0 if they do not grow."""


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
