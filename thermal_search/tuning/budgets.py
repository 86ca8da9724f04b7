"""How long each trial trains: as many images as any other, or as much compute."""

import logging
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import ClassVar, Literal

import search_spaces
from thermal_search.architectures import ARCHITECTURES
from thermal_search.documents import Document, Section
from thermal_search.errors import SearchError
from thermal_search.training.operations import Cost, cost_of
from thermal_search.training.trial_plan import TrialBudget
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.summary import TrialRecord

EVALUATIONS_PER_TRIAL = 10
DEFAULT_COMPUTE = 200_000
"""Of every trial, in images of the reference."""

REFERENCE = "pix2pix"
"""The architecture whose published point is the unit of compute."""


log = logging.getLogger(__name__)


class Speed(Section):
    """What a calibration has measured of an architecture at its published point."""

    seconds_per_operation: float
    seconds_per_image: float
    """Of training, over a whole budget, without evaluations."""

    memory_bytes: int
    """The most that training takes."""

    batch_size: int
    """Images of the batch that was measured: fewer than published if a step of those takes long.
    Then what is said of the published batch is scaled from it."""


class Calibration(Document):
    """OUTPUT/calibration.json: how fast the machines of a search are. Kept, so that a search that
    resumes gives its trials the budgets that they would have had."""

    REMEDY: ClassVar[str] = "restore the file, or start a new search"

    version: Literal[1] = 1
    size: int
    """Of the images, in pixels."""

    compute: float
    """Of every trial, in images of the reference."""

    device: str
    speeds: dict[str, Speed]
    """By architecture. Those that do not fit the machines are missing."""

    failures: dict[str, str]
    """Why an architecture could not be measured."""

    def seconds_per_operation(self, architecture: str) -> float:
        """As measured; of an architecture that was not, the median of the others."""
        if speed := self.speeds.get(architecture):
            return speed.seconds_per_operation
        return median(speed.seconds_per_operation for speed in self.speeds.values())


def reference_cost(size: int) -> Cost:
    """The cost of the unit of compute: one image of pix2pix's published point."""
    return cost_of(REFERENCE, size, search_spaces.load(REFERENCE).published)


class Budgets:
    """The budgets of a search with equal compute.

    A trial's number of images follows from what its setting costs: its operations an image, and, if
    the search has a calibration, the seconds that an operation of its architecture takes.
    """

    def __init__(
        self,
        size: int,
        compute: float,
        calibration: Calibration | None = None,
        published: Callable[[str], TrialConfig] | None = None,
    ) -> None:
        """
        Args:
            size: of the images, in pixels.
            compute: of every trial, in images of the reference.
            published: the published point of an architecture; by default that of the package.
        """
        self.size, self.compute, self.calibration = size, compute, calibration
        self.published = published or _published

    def fix(self, config: TrialConfig) -> TrialConfig:
        """A configuration with its budget: of EVALUATIONS_PER_TRIAL equal parts."""
        seconds = self._seconds(config.architecture, self.cost(config))
        images = self.compute * self.unit_seconds / seconds
        every = max(round(images / EVALUATIONS_PER_TRIAL), 1)
        return replace(config, budget=equal_images(config, every * EVALUATIONS_PER_TRIAL, every))

    def fix_as_published(self, config: TrialConfig) -> TrialConfig:
        """A configuration with the number of images of its architecture's published point,
        whatever its own would cost: trials that exchange states have shown equal images."""
        budget = self.fix(self.published(config.architecture)).budget
        assert budget
        return replace(config, budget=equal_images(config, budget.images, budget.evaluate_every))

    def done(self, trial: TrialRecord) -> float:
        """The fraction of a trial's work that it has done, 0 .. 1: of growing networks less than
        that of its images, as at the published point."""
        share, grown = trial.share, trial.budget.full_size_from / trial.budget.images
        if not grown:
            return share
        published = self.published(trial.architecture)
        cost, at = self.cost(published), _growth_fraction(published)
        if not at:
            return share
        times = grown / at
        while_growing = times * cost.until(min(share / times, at))
        rest = cost.at_full_size
        total = times * cost.until(at) + (1 - grown) * rest
        return (while_growing + max(share - grown, 0.0) * rest) / total

    @property
    def unit_seconds(self) -> float:
        """What a unit of compute takes: seconds of training; operations without a calibration."""
        return self._seconds(REFERENCE, reference_cost(self.size))

    def cost(self, config: TrialConfig) -> Cost:
        """Of a setting; of one that cannot be trained, which its trial will say, that of the
        published point. SearchError if that cannot be counted either."""
        try:
            return cost_of(config.architecture, self.size, config.parameters)
        except Exception as error:
            published = self.published(config.architecture)
            log.warning(
                "What a setting of %s costs cannot be counted (%s): its trial has the budget of "
                "the published point.",
                config.architecture,
                _line(error),
            )
        try:
            return cost_of(published.architecture, self.size, published.parameters)
        except Exception as error:
            raise SearchError(
                f"What {config.architecture} costs cannot be counted ({_line(error)}): pass "
                "--images, which gives every trial the same number of images."
            ) from error

    def _seconds(self, architecture: str, cost: Cost) -> float:
        per_operation = 1.0
        if self.calibration:
            per_operation = self.calibration.seconds_per_operation(architecture)
        return cost.per_image * per_operation


def _published(architecture: str) -> TrialConfig:
    return TrialConfig(architecture, search_spaces.load(architecture).published)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def equal_images(config: TrialConfig, images: int, evaluate_every: int) -> TrialBudget:
    """The budget of `images`, whatever they cost."""
    return TrialBudget(
        images=images,
        evaluate_every=evaluate_every,
        full_size_from=int(images * _growth_fraction(config)),
    )


def _growth_fraction(config: TrialConfig) -> float:
    """The fraction of the budget after which the networks have their full size."""
    architecture = ARCHITECTURES[config.architecture]
    grows = config.parameters.get("growing", getattr(architecture.Config, "growing", True))
    if not architecture.grows or not grows:
        return 0.0
    default: float = architecture.Config.growth_fraction
    fraction = config.parameters.get("growth_fraction", default)
    assert isinstance(fraction, float)
    return fraction
