"""The plan of a search: its settings with every default decided, kept in OUTPUT/search.json."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

import search_spaces
from search_spaces import SearchSpace
from thermal_search import architectures
from thermal_search.command_line import LocationFlag
from thermal_search.data.manifest import Manifest, read_manifest
from thermal_search.documents import Document
from thermal_search.errors import SearchError, SettingsError, known_names
from thermal_search.metrics import is_file, metric_name
from thermal_search.storage import Location
from thermal_search.training.trial_plan import ComparisonPoints, TrialBudget
from thermal_search.tuning.budgets import (
    DEFAULT_COMPUTE,
    EVALUATIONS_PER_TRIAL,
    REFERENCE,
    Budgets,
    Calibration,
    equal_images,
)
from thermal_search.tuning.first_settings import Setting
from thermal_search.tuning.objective import Objective, parse_objective
from thermal_search.tuning.own_code import OwnSpace, require_code
from thermal_search.tuning.population import explorable
from thermal_search.tuning.settings import (
    MAX_TRIALS,
    Finalists,
    Images,
    Scheduler,
    SearchSettings,
    Trials,
)
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.space import ConditionalSpace, load_spaces
from thermal_search.tuning.space_flags import (
    Fixed,
    Narrowed,
    parse_fixed,
    parse_narrowed,
    without_measuring_network,
)

FILE = "search.json"
NAMED_FILES = {"space", "architecture_file", "first"}
"""Files that a person names: a plan holds what was in them, and never their names."""


class SearchPlan(SearchSettings, Document, frozen=True):  # pyright: ignore[reportGeneralTypeIssues] - no field of Document changes
    """Decided settings, the search's identity, and how its metrics are computed."""

    REMEDY: ClassVar[str] = "restore the file, or start a new search"

    version: Literal[3] = 3

    # `...` is pydantic's word for "required": what SearchSettings leaves open is decided here.
    data: LocationFlag = Field(default=...)
    trials: Trials = Field(default=...)
    """MAX_TRIALS if only --hours ends the search."""

    evaluate_every: Images = Field(default=...)
    """1 if trials have equal compute: then each has its own."""

    average_last: Trials = Field(default=...)
    finalists: Finalists = Field(default=...)
    scheduler: Scheduler = "asha"

    is_calibrated: bool = False
    """Whether the budgets of its trials follow from OUTPUT/calibration.json."""

    id: str
    """Finds the search's runs in MLflow again."""

    dataset_digest: str
    """`Manifest.digest` of the dataset; empty until the search starts."""

    protocol: dict[str, str | int]
    """How every metric of the search is computed; empty until the search starts."""

    start_digest: str = ""
    """SHA-256 of the weights of `start_from`; empty without, and until the search starts."""

    own_spaces: dict[str, OwnSpace] = Field(default_factory=dict[str, OwnSpace])
    """By architecture: search spaces from files, as data."""

    own_architectures: dict[str, str] = Field(default_factory=dict[str, str])
    """SHA-256 of the file of each architecture that is not one of the package."""

    first_settings: list[Setting] = Field(default_factory=list[Setting])
    """What --first has, with every parameter."""

    learned_digest: str = ""
    """SHA-256 of what the search had learned of an earlier one before its first trial."""

    @field_validator("evaluate_every")
    @classmethod
    def _require_an_evaluation(cls, evaluate_every: int, info: ValidationInfo) -> int:
        images = info.data.get("images")
        if images and evaluate_every > images:
            raise ValueError(f"must not exceed --images ({images})")
        return evaluate_every

    @property
    def metric(self) -> str:
        """The key of the Frechet distance: `fid` only on Inception's features."""
        return metric_name(self.features)

    @property
    def parsed_objective(self) -> Objective:
        """What is minimized; SearchError if `objective` is not an objective."""
        return parse_objective(self.objective, self.features)

    @property
    def fixed_parameters(self) -> Fixed:
        """What --fix keeps from being searched; SettingsError if it is not in the search space."""
        return parse_fixed(self.fix, self._spaces)

    @property
    def narrowed_parameters(self) -> Narrowed:
        """What --narrow and --features keep to; SettingsError if it is not in the search space."""
        spaces, fixed = self._spaces, self.fixed_parameters
        narrowed = parse_narrowed(self.narrow, spaces, fixed)
        return without_measuring_network(self.features, spaces, fixed, narrowed)

    def search_space(self, names: Sequence[str] | None = None) -> ConditionalSpace:
        """The space of the search, or of the architectures `names`."""
        own = {name: space.load() for name, space in self.own_spaces.items()}
        fixed, narrowed = self.fixed_parameters, self.narrowed_parameters
        return ConditionalSpace(names or self.architectures, fixed, narrowed, own)

    @property
    def _spaces(self) -> dict[str, SearchSpace]:
        """The whole space of each architecture."""
        own = {name: space.load() for name, space in self.own_spaces.items()}
        return load_spaces(self.architectures, own)

    def require_known_architectures(self) -> None:
        """SettingsError if an architecture is unknown, SearchError if it is from a file that was
        not named again."""
        packaged = set(architectures.ARCHITECTURES) & set(search_spaces.names())
        known = sorted(packaged | self.own_architectures.keys())
        for name in self.architectures:
            if name not in known:
                raise SettingsError(f"Unknown architecture {name!r}. {known_names(name, known)}")
        require_code(self.own_architectures)

    def check(self) -> Manifest:
        """The dataset's manifest; SearchError or DatasetError if the search cannot run on it."""
        self.require_known_architectures()
        self.search_space()
        objective = self.parsed_objective
        if "lpips" in objective.keys and not self.lpips_weights:
            raise SearchError(
                f"--objective {self.objective} needs LPIPS, which is computed with a file of "
                "weights only: pass --lpips-weights FILE."
            )
        if objective.has_two_objectives and self.finalists:
            raise SearchError(
                f"--finalists {self.finalists} needs one objective to rank by, but "
                f"{self.objective} has two: pass --finalists 0, or a weighted sum."
            )
        if objective.has_two_objectives and self.scheduler != "none":
            raise SearchError(
                f"--scheduler {self.scheduler} compares trials by one objective, but "
                f"{self.objective} has two: pass --scheduler none, or a weighted sum."
            )
        if self.scheduler == "pbt":
            self._require_something_to_explore()
        manifest = read_manifest(self.data)
        paired = [n for n in self.architectures if architectures.ARCHITECTURES[n].needs_pairs]
        if paired and not manifest.count("pairs", "train"):
            raise SearchError(
                f"{self.data} has no pairs to train on, but {', '.join(paired)} needs pairs: "
                "search only architectures that need none."
            )
        return manifest

    def _require_something_to_explore(self) -> None:
        for name, space in self.search_space().spaces.items():
            if not explorable(space):
                raise SearchError(
                    f"--scheduler pbt changes learning rates and loss weights in flight, but the "
                    f"search space of {name} has none that is searched: name them in its "
                    "IN_FLIGHT, fix fewer of them, or pass another --scheduler."
                )

    @property
    def needs_calibration(self) -> bool:
        """Whether the budgets of a new search's trials follow from --hours."""
        return bool(self.hours) and not self.images and not self.compute

    @property
    def length_text(self) -> str:
        """How long a trial trains if nothing was measured, for people."""
        if self.images:
            return f"{self.images:,} images"
        return f"the compute of {self.compute or DEFAULT_COMPUTE:,} images of {REFERENCE}"

    @property
    def budget_text(self) -> str:
        """How long each trial trains, and how often it is evaluated, for people."""
        if self.images:
            return f"{self.length_text} each, evaluated every {self.evaluate_every:,}"
        times = f"evaluated {EVALUATIONS_PER_TRIAL} times"
        if self.is_calibrated and self.hours:
            return f"equal compute by --hours {self.hours:g}, {times}"
        return f"{self.length_text} each, {times}"

    @property
    def requested_gpus(self) -> float | None:
        """GPUs of one worker, as far as the settings say; None if the machines decide.

        Of several trials a GPU, each part is rounded down to what Ray counts (ten-thousandths): six
        parts of 0.1667 would be more than the whole.
        """
        if isinstance(self.trials_per_gpu, int):
            return int(10_000 / self.trials_per_gpu) / 10_000
        return self.gpus_per_worker

    @property
    def trials_text(self) -> str:
        """How many trials the search has, for people."""
        return f"{self.trials:,}" if not self.is_open_ended else f"{self.hours:g} hours of"

    @property
    def is_open_ended(self) -> bool:
        """Whether only its hours end the search, not a number of trials."""
        return bool(self.hours) and self.trials == MAX_TRIALS

    def budgets(self, size: int, calibration: Calibration | None = None) -> Budgets | None:
        """What fixes the budgets of trials on images of `size` pixels; None for equal images."""
        if self.images:
            return None
        compute = calibration.compute if calibration else self.compute or DEFAULT_COMPUTE
        return Budgets(size, compute, calibration, published=self.search_space().published)

    def fix_budget(self, config: TrialConfig, budgets: Budgets | None) -> TrialConfig:
        """A configuration with the budget of its trial."""
        if budgets and self.scheduler == "pbt":
            return budgets.fix_as_published(config)
        if budgets:
            return budgets.fix(config)
        assert self.images
        return replace(config, budget=equal_images(config, self.images, self.evaluate_every))

    def comparison_points(self, budget: TrialBudget) -> ComparisonPoints | None:
        """Where a trial of this budget is compared with its population; None without pbt.

        Growing networks are compared at their full size. After the last point a trial has as many
        evaluations as its objective is the mean of.
        """
        if self.scheduler != "pbt":
            return None
        return ComparisonPoints(
            every=self.perturb_every * budget.evaluate_every,
            first=budget.full_size_from,
            last=budget.images - self.average_last * budget.evaluate_every,
        )

    def mlflow_params(self) -> dict[str, Any]:
        """Parameters of the search's own MLflow run, without paths of this machine."""
        params = self.model_dump(
            exclude={
                "version", "is_calibrated", "inception_weights", "lpips_weights", "protocol",
                "own_spaces", "first_settings", *NAMED_FILES,
            }
        )  # fmt: skip
        params |= {"data": self.data.name, "output": self.output.name}
        params["start_from"] = self.start_from.name if self.start_from else None
        params["learn_from"] = self.learn_from.name if self.learn_from else None
        params["first_settings"] = len(self.first_settings)
        if is_file(self.features):
            params["features"] = Path(self.features).name
        return params | {f"protocol.{name}": value for name, value in self.protocol.items()}

    def replace(self, **changes: Any) -> "SearchPlan":
        """This plan with some fields changed, and checked again."""
        return SearchPlan(**dict(self) | changes)

    def started_on(
        self, digest: str, protocol: dict[str, str | int], start_digest: str = ""
    ) -> "SearchPlan":
        """This plan, bound to the dataset, the protocol and the starting weights of its first
        run."""
        return self.replace(dataset_digest=digest, protocol=protocol, start_digest=start_digest)

    def with_finalists(self, count: int) -> "SearchPlan":
        """This plan with another number of finalists."""
        return self.replace(finalists=count)

    def save(self) -> None:
        self.write_with_backup(self.output / FILE)

    @classmethod
    def load(cls, output: Location | Path) -> "SearchPlan":
        """The plan of the search in `output`; SearchError if there is none of this release."""
        output = Location.of(output).absolute()
        try:
            # A search may have been moved or copied: what it wrote is where the plan is.
            plan = cls.read_or_backup(output / FILE)
            return plan.replace(output=output, space=(), architecture_file=(), first=None)
        except FileNotFoundError:
            raise SearchError(
                f"{output} holds no search ({FILE} is missing): pass the --output folder of one."
            ) from None
