"""The plan of a search: its settings with every default decided, kept in OUTPUT/search.json."""

import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

import search_spaces
from search_spaces import SearchSpace
from thermal_search import architectures
from thermal_search.architectures.translator import Config
from thermal_search.command_line import LocationFlag
from thermal_search.data.manifest import Manifest, read_manifest
from thermal_search.documents import Document
from thermal_search.errors import SearchError, SettingsError, known_names
from thermal_search.metrics import is_file, metric_name
from thermal_search.storage import Location
from thermal_search.tuning.first_settings import Setting, read_first
from thermal_search.tuning.objective import PARETO, Objective, parse_objective
from thermal_search.tuning.own_code import OwnCode, OwnSpace, read_own_code, require_code
from thermal_search.tuning.settings import (
    ALL,
    Finalists,
    Images,
    Scheduler,
    SearchSettings,
    Trials,
)
from thermal_search.tuning.space import ConditionalSpace, load_spaces
from thermal_search.tuning.space_flags import (
    Fixed,
    Narrowed,
    parse_fixed,
    parse_narrowed,
    without_measuring_network,
)

FILE = "search.json"
EVALUATIONS_PER_TRIAL = 10
MAX_AVERAGED = 3
"""Default number of evaluations in a trial's objective value, if it has three times as many."""

DEFAULT_FINALISTS = 3
TRIALS_FOR_FINALISTS = 20
"""A smaller search retrains no finalists by default: that would take longer than the search."""

MIN_GENERATOR_STEPS = 5_000
"""A trial with fewer generator steps is short: the papers take tens of thousands and more."""

CHANGEABLE = {
    "slots",
    "workers",
    "gpus_per_worker",
    "placement",
    "inception_weights",
    "lpips_weights",
    "start_from",
    "data",
    "output",
    "finalists",
    "seeds",
}
"""What may differ when a search resumes: paths, how many machines there are, and what happens when
its trials have ended."""

GROWING = {"trials", "architectures"}
"""What may become more when a search resumes."""

FILES = {"space", "architecture_file", "first"}
"""Files that a person names: a plan holds what was in them, and never their names."""

log = logging.getLogger(__name__)


class SearchPlan(SearchSettings, Document, frozen=True):  # pyright: ignore[reportGeneralTypeIssues] - no field of Document changes
    """Decided settings, the search's identity, and how its metrics are computed."""

    REMEDY: ClassVar[str] = "restore the file, or start a new search"

    version: Literal[1] = 1

    # `...` is pydantic's word for "required": what SearchSettings leaves open is decided here.
    data: LocationFlag = Field(default=...)
    evaluate_every: Images = Field(default=...)
    average_last: Trials = Field(default=...)
    finalists: Finalists = Field(default=...)
    scheduler: Scheduler = "asha"

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
        images = info.data.get("images", evaluate_every)
        if evaluate_every > images:
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
        manifest = read_manifest(self.data)
        paired = [n for n in self.architectures if architectures.ARCHITECTURES[n].needs_pairs]
        if paired and not manifest.count("pairs", "train"):
            raise SearchError(
                f"{self.data} has no pairs to train on, but {', '.join(paired)} needs pairs: "
                "search only architectures that need none."
            )
        return manifest

    def warn_if_short(self, size: int) -> None:
        """Logs a warning if the budget leaves few generator steps on images of `size` pixels."""
        short: list[str] = []
        space = self.search_space()
        for name in self.architectures:
            config = architectures.ARCHITECTURES[name].Config(
                size=size, **space.published(name).parameters
            )
            steps = generator_steps(config, self.images, self.workers)
            if steps < MIN_GENERATOR_STEPS:
                short.append(f"{name} ({steps:,})")
        if short:
            log.warning(
                "--images %d leaves fewer than %s generator steps to the published points of %s: "
                "pass more images, or expect smaller batches to be better.",
                self.images,
                f"{MIN_GENERATOR_STEPS:,}",
                ", ".join(short),
            )

    def mlflow_params(self) -> dict[str, Any]:
        """Parameters of the search's own MLflow run, without paths of this machine."""
        params = self.model_dump(
            exclude={
                "version", "inception_weights", "lpips_weights", "protocol", "own_spaces",
                "first_settings", *FILES,
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

    def resumed(self, settings: SearchSettings) -> "SearchPlan":
        """This plan with the settings that were passed; SearchError if one changes the search."""
        code = read_own_code(settings.space, settings.architecture_file, self.own_spaces)
        passed = {name: _value(settings, name, code) for name in settings.model_fields_set - FILES}
        passed = {name: value for name, value in passed.items() if value is not None}
        for name, now in passed.items():
            before = getattr(self, name)
            if name in GROWING and _includes(now, before):
                continue
            if name not in CHANGEABLE and before != now:
                flag = name.replace("_", "-")
                raise SearchError(
                    f"--resume needs the settings that the search began with, but --{flag} was "
                    f"{_text(before)} and is now {_text(now)}"
                    + (", which is less" if name in GROWING else "")
                    + ": leave it out, or start a new search in another --output folder."
                )
        plan = self.replace(**passed)._with_code(code, had=self.architectures)
        if plan.workers != self.workers:
            log.warning(
                "--workers was %d and is now %d, which changes a trial's numbers: each step trains "
                "on one batch per worker, so that trials compare best with those of as many "
                "workers.",
                self.workers,
                plan.workers,
            )
        plan.require_known_architectures()
        if settings.first:
            first = read_first(settings.first, plan.search_space().spaces)
            if first != self.first_settings:
                raise SearchError(
                    f"--first {settings.first} has other settings than the search began with: "
                    "leave it out, or start a new search in another --output folder."
                )
        return plan

    def _with_code(self, code: OwnCode, had: Sequence[str]) -> "SearchPlan":
        """This plan with the code of files, which must be what it was for architectures that the
        search had."""
        require_code({n: d for n, d in self.own_architectures.items() if n in code.architectures})
        for name, space in code.spaces.items():
            before = self.own_spaces.get(name)
            if name in had and (before is None or before.digest != space.digest):
                was = f"SHA-256 {before.digest[:12]}..." if before else "that of the package"
                raise SearchError(
                    f"The search space of {name} is not the one that the search began with "
                    f"({was}): leave out --space, or start a new search in another --output folder."
                )
        own = {name: digest for name, digest in code.architectures.items() if name not in had}
        spaces = {name: space for name, space in code.spaces.items() if name not in had}
        searched = set(self.architectures)
        if unused := sorted((own.keys() | spaces.keys()) - searched):
            raise SettingsError(
                f"{unused[0]} has a file, but is not searched: add it to --architectures."
            )
        return self.replace(
            own_architectures={**self.own_architectures, **own},
            own_spaces={**self.own_spaces, **spaces},
        )


def generator_steps(config: Config, images: int, workers: int) -> int:
    """The generator's updates in a trial of `images` images shown; at most about
    MIN_GENERATOR_STEPS are counted."""
    shown = steps = 0
    while shown < images and steps < MIN_GENERATOR_STEPS:
        shown += config.batch_size_at(shown / images) * workers
        steps += config.generator_turns
    return steps


def plan_from_settings(settings: SearchSettings, *, resume: bool = False) -> SearchPlan:
    """The plan of a new search, with every default decided; with `resume` the plan in the output
    folder, with the settings that may change."""
    if resume:
        return SearchPlan.load(settings.output).resumed(settings)
    if settings.data is None:
        raise SettingsError("A search needs --data, a folder written by process.py.")
    code = read_own_code(settings.space, settings.architecture_file)
    every = settings.evaluate_every or max(settings.images // EVALUATIONS_PER_TRIAL, 1)
    evaluations = settings.images // every
    has_two_objectives = settings.objective.strip().startswith(PARETO)
    is_small = settings.trials < TRIALS_FOR_FINALISTS
    defaults = {
        "evaluate_every": every,
        "average_last": min(max(evaluations // 3, 1), MAX_AVERAGED),
        "finalists": 0 if has_two_objectives or is_small else DEFAULT_FINALISTS,
        "scheduler": "none" if has_two_objectives else "asha",
    }
    names = SearchSettings.model_fields.keys() - FILES
    decided = {name: _value(settings, name, code) for name in names}
    decided |= {name: value for name, value in defaults.items() if decided[name] is None}
    plan = SearchPlan(**decided, id=uuid.uuid4().hex, dataset_digest="", protocol={})
    plan = plan._with_code(code, had=())  # pyright: ignore[reportPrivateUsage]
    if settings.first:
        plan.require_known_architectures()
        first = read_first(settings.first, plan.search_space().spaces)
        plan = plan.replace(first_settings=first)
    return plan


def _value(settings: SearchSettings, name: str, code: OwnCode) -> Any:
    """A setting as a plan holds it."""
    value = getattr(settings, name)
    if name == "architectures" and value == ALL:
        return (*search_spaces.names(), *code.architectures)
    if name == "features" and is_file(value):
        return str(Path(value).absolute())
    return value


def _text(value: Any) -> str:
    """A setting as people write it."""
    if value is None:
        return "not given"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _includes(now: Any, before: Any) -> bool:
    """Whether a setting that may grow has grown, or is as it was."""
    return now >= before if isinstance(now, int) else set(now) >= set(before)
