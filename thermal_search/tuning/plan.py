"""What a search was asked to do, kept in O/search.json so that it can be taken up again."""

import dataclasses
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import search_spaces
from thermal_search import architectures
from thermal_search.data.manifest import Manifest, read_manifest
from thermal_search.errors import SearchError
from thermal_search.metrics import FeaturesPrecision, is_file, metric_name
from thermal_search.storage import Location
from thermal_search.training.step import Precision
from thermal_search.tuning.objective import Objective, parse_objective

FILE = "search.json"
Placement = Literal["pack", "spread"]

CHANGEABLE = {
    "slots",
    "workers",
    "gpus_per_worker",
    "placement",
    "inception_weights",
    "lpips_weights",
    "data",
    "output",
}
"""What may differ when a search is resumed: where things are, and how many machines there are."""


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    data: Location
    """A folder written by process.py."""

    output: Location
    """Where everything the search makes goes."""

    architectures: tuple[str, ...]
    trials: int
    images: int
    """A trial's full budget, in images shown over all its workers."""

    evaluate_every: int
    """Images between two evaluations, the first of which is the first chance to be stopped."""

    slots: int | None = None
    """Trials at once; None: as many as the machines hold."""

    workers: int = 1
    """Workers that train one trial together."""

    gpus_per_worker: float | None = None
    """GPUs of one worker, whole or a fraction; None: one where there are any."""

    placement: Placement | None = None
    """Where a slot's workers are: on one machine (pack), on as many as there are (spread); None: on
    one if it holds them."""

    features: str = "inception"
    """A name, or the path of an encoder's file."""

    features_precision: FeaturesPrecision = "fp32"
    inception_weights: Path | None = None
    lpips_weights: Path | None = None
    """torchvision's AlexNet or VGG-16: where given, LPIPS is measured too."""

    objective: str = "fid"
    """What is minimized, in the words of `tuning/objective.py`."""

    average_last: int = 1
    """A trial is worth the mean of so many of its evaluations, counted from the last."""

    finalists: int = 0
    """So many of the best configurations are trained again with further seeds; 0: none."""

    seeds: int = 2
    """Further seeds of each finalist."""

    seed: int = 0
    precision: Precision = "auto"
    reduction: float = 3.0
    """Successive halving keeps about one in so many trials of an architecture at each rung."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    dataset_digest: str = ""
    protocol: dict[str, Any] = field(default_factory=dict[str, Any])
    """How every number of the search is measured."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", Location.of(self.data).absolute())
        object.__setattr__(self, "output", Location.of(self.output).absolute())
        object.__setattr__(self, "architectures", tuple(self.architectures))
        if is_file(self.features):
            object.__setattr__(self, "features", str(Path(self.features).absolute()))
        for name in ("inception_weights", "lpips_weights"):
            if (file := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(file).absolute())

    @property
    def metric(self) -> str:
        """The metric's key: `fid` only on Inception's features."""
        return metric_name(self.features)

    @property
    def parsed_objective(self) -> Objective:
        """What is minimized; SearchError where `objective` says nothing that can be."""
        return parse_objective(self.objective, self.features)

    def check(self) -> Manifest:
        """Raises SearchError or DatasetError where the plan cannot be carried out."""
        if not self.architectures:
            raise SearchError("A search needs at least one architecture: pass --architectures.")
        known = sorted(set(architectures.ARCHITECTURES) & set(search_spaces.names()))
        for name in self.architectures:
            if name not in known:
                raise SearchError(f"Unknown architecture {name!r}. Available: {', '.join(known)}.")
        if len(set(self.architectures)) < len(self.architectures):
            raise SearchError(f"Name each architecture once, not {','.join(self.architectures)}.")
        counted = (
            "trials",
            "images",
            "evaluate_every",
            "workers",
            "slots",
            "average_last",
            "seeds",
        )
        for name in counted:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SearchError(f"--{name.replace('_', '-')} must be at least 1, but is {value}.")
        if self.evaluate_every > self.images:
            raise SearchError(
                f"--evaluate-every ({self.evaluate_every}) must not exceed --images "
                f"({self.images}): a trial that is never evaluated cannot be compared."
            )
        if "lpips" in self.parsed_objective.keys and not self.lpips_weights:
            raise SearchError(
                f"--objective {self.objective} needs LPIPS, which is measured with a file of "
                "weights only: pass --lpips-weights FILE."
            )
        if self.finalists < 0:
            raise SearchError(f"--finalists must not be negative, but is {self.finalists}.")
        if self.parsed_objective.has_two_objectives and self.finalists:
            raise SearchError(
                f"--finalists {self.finalists} needs one measure to rank by, but {self.objective} "
                "has two: pass --finalists 0, or a weighted sum."
            )
        gpus = self.gpus_per_worker or 0.0
        if gpus < 0 or (gpus > 1 and gpus % 1):
            raise SearchError(
                f"--gpus-per-worker must be a fraction of one GPU or a whole number, but is "
                f"{gpus:g}."
            )
        if self.reduction <= 1:
            raise SearchError(f"--reduction must be above 1, but is {self.reduction}.")
        manifest = read_manifest(self.data)
        paired = [n for n in self.architectures if architectures.ARCHITECTURES[n].needs_pairs]
        if paired and not manifest.count("pairs", "train"):
            raise SearchError(
                f"{self.data} has no pairs to train on, which {', '.join(paired)} must have: "
                "search only systems that need none."
            )
        return manifest

    def mlflow_params(self) -> dict[str, Any]:
        """What the search's own MLflow run shows; no machine paths."""
        shown = {**self.to_json(), "data": self.data.name, "output": self.output.name}
        if is_file(self.features):
            shown["features"] = Path(self.features).name
        for name in ("inception_weights", "lpips_weights"):
            shown.pop(name)
        shown.pop("protocol")
        return shown | {f"protocol.{name}": value for name, value in self.protocol.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            name: str(value) if isinstance(value, (Path, Location)) else value
            for name, value in vars(self).items()
        }

    def save(self) -> None:
        (self.output / FILE).write_text(json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def load(cls, output: Location | Path) -> "SearchPlan":
        """The plan of the search in `output`."""
        output = Location.of(output)
        try:
            content = json.loads((output / FILE).read_text())
        except FileNotFoundError:
            raise SearchError(
                f"{output} holds no search ({FILE} is missing): pass the --output folder of one."
            ) from None
        except ValueError as error:
            raise SearchError(f"{output / FILE} cannot be read: {error}.") from None
        return cls(**content)

    def started_on(self, digest: str, protocol: dict[str, str | int]) -> "SearchPlan":
        """This plan, bound to the dataset and the protocol of its first run."""
        return dataclasses.replace(self, dataset_digest=digest, protocol=protocol)

    def with_finalists(self, count: int) -> "SearchPlan":
        """This plan with another number of finalists."""
        return dataclasses.replace(self, finalists=count)

    def resumed(self, asked: dict[str, Any]) -> "SearchPlan":
        """This plan with the flags given anew; raises SearchError where one would change it."""
        given = {name: value for name, value in asked.items() if value is not None}
        wanted = dataclasses.replace(self, **given)
        for name in given:
            if name not in CHANGEABLE and getattr(wanted, name) != getattr(self, name):
                flag = name.replace("_", "-")
                raise SearchError(
                    f"--resume goes on with the same search, but --{flag} was "
                    f"{getattr(self, name)} and is now {getattr(wanted, name)}: leave it out, or "
                    "start a new search in another --output folder."
                )
        return wanted
