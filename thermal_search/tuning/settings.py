"""The settings of a search, declared once: flags, files of settings, checks and documentation."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import Field, ValidationInfo, field_validator

from thermal_search.choices import FeaturesPrecision, Precision
from thermal_search.command_line import CONFIG, LocationFlag, Settings, Switch
from thermal_search.storage import Location

ALL = ("all",)
"""As `architectures`: every architecture with a search space."""

MAX_COUNT = 10_000
"""Of slots, workers, GPUs and retrainings: more is a typing error."""

MAX_TRIALS_PER_GPU = 48
"""As many processes as NVIDIA MPS serves on one GPU."""

MAX_TRIALS = 1_000_000
MAX_IMAGES = 10**12
MAX_SEED = 2**32 - 1
"""The largest seed that Optuna's samplers accept."""

DATA = Parameter(group=Group("Data and output", sort_key=1))
BUDGET = Parameter(group=Group("Search space and budget", sort_key=2))
RESOURCES = Parameter(group=Group("Resources", sort_key=3))
EVALUATION = Parameter(group=Group("Evaluation", sort_key=4))
OBJECTIVE = Parameter(group=Group("Objective and finalists", sort_key=5))
CLUSTER = Parameter(group=Group("Ray cluster", sort_key=6))
"""The groups of flags in --help and in docs/flags.md."""

NAMES = Parameter(show_default=",".join)
"""Shows a default as people write it."""

Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Trials = Annotated[int, Field(ge=1, le=MAX_TRIALS)]
Images = Annotated[int, Field(ge=1, le=MAX_IMAGES)]
Finalists = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Placement = Literal["pack", "spread"]
TrialsPerGpu = Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_TRIALS_PER_GPU)]
Scheduler = Literal["asha", "hyperband", "median", "pbt", "none"]
SamplerName = Literal["tpe", "random", "gp"]
StartupTrials = Annotated[int, Field(ge=0, le=MAX_TRIALS)]


class FeatureSettings(Settings, frozen=True):
    """The network whose features the Frechet distance is computed on."""

    features: Annotated[str, EVALUATION] = "inception"
    """Features of the Frechet distance: inception (the distance is then FID), efficientnet-lite0,
    or the path of an encoder (.pt2 or .onnx)."""

    features_precision: Annotated[FeaturesPrecision, EVALUATION] = "fp32"
    """Precision of the feature network."""

    inception_weights: Annotated[Path | None, EVALUATION] = None
    """pytorch-fid's file of Inception weights; default: downloaded."""

    @field_validator("inception_weights", "lpips_weights", check_fields=False)
    @classmethod
    def _make_absolute(cls, file: Path | None) -> Path | None:
        return file.absolute() if file else None


class MetricSettings(FeatureSettings, frozen=True):
    """The networks behind all metrics."""

    lpips_weights: Annotated[Path | None, EVALUATION] = None
    """torchvision's weights of AlexNet or VGG-16; with them LPIPS is computed too."""


class EvaluationSettings(MetricSettings, frozen=True):
    """The networks behind all metrics of an exported generator; None: as its search had them."""

    features: Annotated[str | None, EVALUATION] = None  # pyright: ignore[reportIncompatibleVariableOverride] - frozen
    """Features of the Frechet distance: inception (the distance is then FID), efficientnet-lite0,
    or the path of an encoder (.pt2 or .onnx); default: those of the generator's search."""

    features_precision: Annotated[FeaturesPrecision | None, EVALUATION] = None  # pyright: ignore[reportIncompatibleVariableOverride] - frozen
    """Precision of the feature network; default: that of the generator's search, or fp32 for other
    features."""


class SearchSettings(MetricSettings, frozen=True):
    """What to search for, on what, and with how much of it.

    A field that is None is decided by `plan_from_settings`, or when the machines are known.
    """

    data: Annotated[LocationFlag | None, DATA] = None
    """A dataset written by process.py: a folder, or its s3:// or gs:// address. Required for a new
    search."""

    output: Annotated[LocationFlag, DATA]
    """The folder or bucket address that the search writes to: empty for a new search."""

    architectures: Annotated[tuple[str, ...], BUDGET, NAMES] = ALL
    """Architectures to search: names separated by commas, or all."""

    fix: Annotated[tuple[str, ...], BUDGET, NAMES] = ()
    """Parameters that are not searched, separated by commas, as in pix2pix.batch_size=8: every
    trial has this value, the published point too."""

    start_from: Annotated[LocationFlag | None, BUDGET] = None
    """A folder written by export: trials of its architecture begin with its generator's weights
    where names and shapes agree."""

    narrow: Annotated[tuple[str, ...], BUDGET, NAMES] = ()
    """Parts of the search space, separated by commas: a range within the parameter's own, as in
    pix2pix.generator_lr=1e-5:1e-3, or some of its choices, as in pix2pix.norm=batch|instance. A
    published value outside moves to the nearest one inside."""

    space: Annotated[tuple[str, ...], BUDGET, NAMES] = ()
    """Python files with search spaces of one's own, separated by commas: like those in
    search_spaces/, named NAME.py or given as NAME=FILE.py. They are run, and therefore named on the
    command line only."""

    architecture_file: Annotated[tuple[Path, ...], BUDGET, Parameter(show_default=False)] = ()
    """Python files NAME.py, each with an architecture of one's own and its SPACE and PUBLISHED,
    separated by commas. They are run, and therefore named on the command line only, when the search
    resumes too."""

    first: Annotated[Path | None, BUDGET] = None
    """A YAML or JSON file of settings to try first: a list of {architecture, parameters}. Missing
    parameters have their published value."""

    no_published: Annotated[Switch, BUDGET] = False
    """Do not try the published point of each architecture first."""

    learn_from: Annotated[LocationFlag | None, BUDGET] = None
    """The --output folder of an earlier search. If its trials compare with those of this search
    (dataset, protocol and the budget of trials are the same), the sampler is told them; otherwise
    its best setting of each architecture is tried first."""

    sampler: Annotated[SamplerName, BUDGET] = "tpe"
    """Optuna's sampler: tpe, random or gp (a Gaussian process for each architecture)."""

    startup_trials: Annotated[StartupTrials, BUDGET] = 10
    """Trials of an architecture before the sampler's model of it is used, until when its settings
    are random."""

    trials: Annotated[Trials | None, BUDGET] = None
    """Number of trials, each with one configuration; default: 60, or with --hours as many as there
    is time for."""

    hours: Annotated[float | None, Field(gt=0, le=MAX_COUNT), BUDGET] = None
    """Hours that the whole search may take, the retrainings of its finalists included. Without
    --images and --compute it also decides the budget of a trial."""

    compute: Annotated[Images | None, BUDGET] = None
    """Training budget of every trial, in images of pix2pix at its published point: a trial shows as
    many images as take the same number of operations; default: 200000, or what --hours leaves."""

    images: Annotated[Images | None, BUDGET] = None
    """Training budget of every trial in images shown, over all its workers, whatever they cost;
    default: equal compute (--compute)."""

    evaluate_every: Annotated[Images | None, BUDGET] = None
    """With --images: images shown between two evaluations of a trial, after each of which the trial
    may be stopped; default: a tenth of the trial's budget."""

    scheduler: Annotated[Scheduler | None, BUDGET] = None
    """Which trials stop early: asha (successive halving, first within an architecture, then of all
    trials), hyperband (successive halving within an architecture, in several brackets, some of
    which begin later), median (worse than the median of its architecture's trials) or none. With
    pbt (population based training) none stops: a trial in the lowest quarter continues from the
    state of one in the upper quarter, with other learning rates and loss weights. Default: asha,
    but none with two objectives."""

    reduction: Annotated[float, Field(gt=1), BUDGET] = 3.0
    """Reduction factor of asha and hyperband: each rung keeps the best 1/reduction of the trials
    that come to it, and is this many times as far as the one before."""

    perturb_every: Annotated[Count, BUDGET] = 2
    """With pbt: evaluations of a trial between two at which it is compared."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED), BUDGET] = 0
    """Seed of the sampler and of every trial."""

    slots: Annotated[Count | None, RESOURCES] = None
    """Trials that run at the same time; default: as many as fit the machines."""

    workers: Annotated[Count, RESOURCES] = 1
    """Workers that train one trial together."""

    gpus_per_worker: Annotated[float | None, Field(ge=0, le=MAX_COUNT), RESOURCES] = None
    """GPUs of one worker: a fraction below 1 or a whole number; default: 1 if the machines have
    GPUs."""

    trials_per_gpu: Annotated[TrialsPerGpu | None, RESOURCES] = None
    """Trials that share each GPU: a number, or auto (as many as its memory holds and as train more
    images a second together, at most 8, after measuring for at most four minutes); default: 1."""

    placement: Annotated[Placement | None, RESOURCES] = None
    """The workers of a trial all on one machine (pack), or on as many machines as possible
    (spread); default: on one machine if they fit."""

    precision: Annotated[Precision, RESOURCES] = "auto"
    """Precision of the forward pass in training; auto: bf16 if the hardware supports it."""

    objective: Annotated[str, OBJECTIVE] = "fid"
    """What to minimize: fid, kid, l1, lpips, psnr, ssim, a weighted sum such as fid+10*lpips, or
    two of these such as pareto:fid,l1."""

    average_last: Annotated[Trials | None, OBJECTIVE] = None
    """Number of a trial's last evaluations that its objective value is the mean of; default: 3, but
    at most a third of its evaluations."""

    finalists: Annotated[Finalists | None, OBJECTIVE] = None
    """Number of best configurations that are trained again with further seeds and evaluated on the
    test split; default: 3, or 0 with fewer than 20 trials or two objectives."""

    seeds: Annotated[Count, OBJECTIVE] = 2
    """Number of further seeds of each finalist."""

    @field_validator("data", "output", "start_from", "learn_from")
    @classmethod
    def _make_locations_absolute(cls, location: Location | None) -> Location | None:
        return location.absolute() if location else None

    @field_validator("first")
    @classmethod
    def _make_first_absolute(cls, file: Path | None) -> Path | None:
        return file.absolute() if file else None

    @field_validator("architectures", "fix", "narrow", "space", "architecture_file", mode="before")
    @classmethod
    def _split_names(cls, names: Any) -> Any:
        """Names separated by commas, as flags and files have them."""
        texts = [names] if isinstance(names, str) else names
        if isinstance(texts, (list, tuple)):
            texts = [str(text) if isinstance(text, Path) else text for text in texts]
        if not isinstance(texts, (list, tuple)) or not all(isinstance(t, str) for t in texts):
            return names
        return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())

    @field_validator("architectures")
    @classmethod
    def _require_distinct_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("must name at least one architecture")
        if len(set(names)) < len(names):
            raise ValueError("must name each architecture once")
        return names

    @field_validator("gpus_per_worker")
    @classmethod
    def _require_fraction_or_whole(cls, gpus: float | None) -> float | None:
        if gpus and gpus > 1 and gpus % 1:
            raise ValueError("must be a fraction of one GPU or a whole number")
        return gpus

    @field_validator("trials_per_gpu", mode="before")
    @classmethod
    def _require_number_or_auto(cls, trials: Any) -> Any:
        if trials is None or trials == "auto":
            return trials
        try:
            number = int(trials)  # of a flag's text, too
        except (TypeError, ValueError, OverflowError):
            number = 0
        is_whole = isinstance(trials, str) or number == trials
        if not is_whole or not 1 <= number <= MAX_TRIALS_PER_GPU:
            raise ValueError(f"must be auto or a whole number from 1 to {MAX_TRIALS_PER_GPU}")
        return number

    @field_validator("trials_per_gpu")
    @classmethod
    def _require_one_way_to_share(
        cls, trials: TrialsPerGpu | None, info: ValidationInfo
    ) -> TrialsPerGpu | None:
        if trials is None:
            return None
        if info.data.get("gpus_per_worker") is not None:
            raise ValueError("must not come with --gpus-per-worker, which decides the same")
        if trials != 1 and info.data.get("workers", 1) > 1:
            raise ValueError("must be 1 if several --workers train one trial")
        if trials == "auto" and info.data.get("slots") is not None:
            raise ValueError("must be a number if --slots is given, because auto decides the slots")
        return trials


class LaunchSettings(Settings, frozen=True):
    """How one run of the search command starts: not a part of the search."""

    dry_run: Annotated[Switch, BUDGET] = False
    """Say what the search will train, how long it takes and what does not fit the machines, after
    at most two minutes of measuring them. Writes nothing."""

    config: Annotated[Path | None, DATA, Parameter(name=CONFIG)] = None
    """A YAML file of settings named like the flags, such as evaluate_every: 20000. Flags on the
    command line override it."""

    resume: Annotated[Switch, DATA] = False
    """Resume the search in --output."""

    storage: Annotated[str | None, DATA] = None
    """Database for the study that optuna-dashboard and others open, such as
    postgresql://user@host/optuna; default: the file optuna-journal.log in --output. It is written
    for others: the search resumes without it."""

    address: Annotated[str | None, CLUSTER] = None
    """The Ray cluster to join: an address, auto (the cluster of this machine) or local (start Ray
    on this machine); default: RAY_ADDRESS if it is set, otherwise local, or auto in
    cluster/search.py."""

    wait_for_nodes: Annotated[Count, CLUSTER] = 1
    """Number of machines to wait for, the head included."""

    wait_minutes: Annotated[float | None, Field(ge=0, le=MAX_COUNT), CLUSTER] = None
    """Minutes to wait for these machines, and for the machines that --slots needs; default: 15 on a
    cluster, 0 on this machine alone."""
