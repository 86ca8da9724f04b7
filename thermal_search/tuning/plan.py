"""The plan of a search: its settings with every default decided, kept in OUTPUT/search.json."""

import logging
import uuid
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

import search_spaces
from thermal_search import architectures
from thermal_search.architectures.translator import Config
from thermal_search.command_line import LocationFlag
from thermal_search.data.manifest import Manifest, read_manifest
from thermal_search.documents import Document
from thermal_search.errors import SearchError, SettingsError
from thermal_search.metrics import is_file, metric_name
from thermal_search.storage import Location
from thermal_search.tuning.objective import PARETO, Objective, parse_objective
from thermal_search.tuning.settings import (
    ALL,
    Finalists,
    Images,
    Scheduler,
    SearchSettings,
    Trials,
)
from thermal_search.tuning.space import ConditionalSpace, Fixed, parse_fixed

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
    "data",
    "output",
    "finalists",
    "seeds",
}
"""What may differ when a search resumes: paths, how many machines there are, and what happens when
its trials have ended."""

GROWING = {"trials", "architectures"}
"""What may become more when a search resumes."""

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
        return parse_fixed(self.fix, self.architectures)

    def check(self) -> Manifest:
        """The dataset's manifest; SearchError or DatasetError if the search cannot run on it."""
        known = sorted(set(architectures.ARCHITECTURES) & set(search_spaces.names()))
        for name in self.architectures:
            if name not in known:
                raise SettingsError(
                    f"Unknown architecture {name!r}. Available: {', '.join(known)}."
                )
        parse_fixed(self.fix, self.architectures)
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
        space = ConditionalSpace(self.architectures, self.fixed_parameters)
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
            exclude={"version", "inception_weights", "lpips_weights", "protocol"}
        )
        params |= {"data": self.data.name, "output": self.output.name}
        if is_file(self.features):
            params["features"] = Path(self.features).name
        return params | {f"protocol.{name}": value for name, value in self.protocol.items()}

    def replace(self, **changes: Any) -> "SearchPlan":
        """This plan with some fields changed, and checked again."""
        return SearchPlan(**dict(self) | changes)

    def started_on(self, digest: str, protocol: dict[str, str | int]) -> "SearchPlan":
        """This plan, bound to the dataset and the protocol of its first run."""
        return self.replace(dataset_digest=digest, protocol=protocol)

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
            return cls.read_or_backup(output / FILE).replace(output=output)
        except FileNotFoundError:
            raise SearchError(
                f"{output} holds no search ({FILE} is missing): pass the --output folder of one."
            ) from None

    def resumed(self, settings: SearchSettings) -> "SearchPlan":
        """This plan with the settings that were passed; SearchError if one changes the search."""
        passed = {name: _value(settings, name) for name in settings.model_fields_set}
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
        return self.replace(**passed)


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
    decided = {name: _value(settings, name) for name in SearchSettings.model_fields}
    decided |= {name: value for name, value in defaults.items() if decided[name] is None}
    return SearchPlan(**decided, id=uuid.uuid4().hex, dataset_digest="", protocol={})


def _value(settings: SearchSettings, name: str) -> Any:
    """A setting as a plan holds it."""
    value = getattr(settings, name)
    if name == "architectures" and value == ALL:
        return tuple(search_spaces.names())
    if name == "features" and is_file(value):
        return str(Path(value).absolute())
    return value


def _text(value: Any) -> str:
    """A setting as people write it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _includes(now: Any, before: Any) -> bool:
    """Whether a setting that may grow has grown, or is as it was."""
    return now >= before if isinstance(now, int) else set(now) >= set(before)
