"""What a trial trains, and what an evaluation finds: plain data, for processes without torch."""

from collections.abc import Mapping, Sequence
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
class LaterParameters:
    """Parameters that apply from a number of images on. They differ from those before in what may
    change in flight (`SearchSpace.in_flight`) alone."""

    images: int
    parameters: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class StateOrigin:
    """The state of another trial, which a trial continues from."""

    trial: str
    """Its id, which is also the name of its folder."""

    images: int
    """Shown until that state."""

    seconds: float
    """That the trial which continues has trained and been evaluated so far."""


@dataclass(frozen=True, kw_only=True)
class ComparisonPoints:
    """Where a trial of population based training is compared with others: at the first evaluation
    of each `every` images."""

    every: int
    first: int
    """Not before so many images."""

    last: int
    """Not at a multiple of `every` beyond so many images."""

    def arrivals(self, shown: Sequence[int]) -> dict[int, int]:
        """The images of the evaluations that come first to a point, by the number of the point.

        Args:
            shown: the images of a trial's evaluations, increasing.
        """
        came: dict[int, int] = {}
        for images in shown:
            came.setdefault(images // self.every, images)
        return {
            point: images
            for point, images in came.items()
            if point and self.first <= point * self.every <= self.last
        }


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a trial of population based training goes: what changes while it trains."""

    changes: tuple[LaterParameters, ...] = ()
    """In the order of their images."""

    origin: StateOrigin | None = None
    """What it continues from, unless it has a later state of its own."""

    points: ComparisonPoints | None = None
    """Where states are kept for other trials; None: nowhere."""


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What one trial trains, for how long, and where it saves its state."""

    id: str
    architecture: str
    parameters: Mapping[str, object]
    """Fields of the architecture's Config; the others have their defaults."""

    folder: Location
    """For its checkpoints and image grids; every worker can write to it. On a disk it exists: a
    worker that made it would write to the place of a disk that is no longer mounted."""

    images: int
    """The full budget, in images shown by all workers together."""

    evaluate_every: int
    """Images shown between two evaluations."""

    seed: int = 0
    precision: Precision = "auto"
    start_from: StartingPoint | None = None
    course: Course | None = None
    """None if neither its parameters change nor its states are kept."""

    @property
    def changes(self) -> tuple[LaterParameters, ...]:
        """Parameters that apply later than `parameters`."""
        return self.course.changes if self.course else ()

    @property
    def origin(self) -> StateOrigin | None:
        """The state of another trial that it continues from."""
        return self.course.origin if self.course else None

    def parameters_at(self, images: int) -> Mapping[str, object]:
        """The parameters of a step that begins when so many images have been shown."""
        passed = [change.parameters for change in self.changes if change.images <= images]
        return passed[-1] if passed else self.parameters

    def kept_images(self, shown: Sequence[int]) -> set[int]:
        """Those of the evaluations after `shown` images, in their order, whose states are kept."""
        points = self.course.points if self.course else None
        return set(points.arrivals(shown).values()) if points else set()

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
