"""What a search has found: the file of each trial, and OUTPUT/summary.json, derived from them."""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from thermal_search.documents import Document, Section
from thermal_search.training.trial_plan import MAX_IMAGES, TrialBudget
from thermal_search.tuning.exploits import ExploitRecord, ScheduledParameters, undo

FILE = "summary.json"

Status = Literal["running", "completed", "stopped", "diverged", "failed", "interrupted"]
"""`completed`: trained for its whole budget. `stopped`: ended early, by the scheduler or --hours.
`interrupted`: its machine failed, not the trial; it continues when the search resumes."""

OUT_OF_TIME = "the time of the search was over"
"""The reason of a trial that --hours stopped."""

OUT_OF_SHARED_MEMORY = "out of memory in its share of a GPU"
"""How the reason of a trial begins that is to train again with a GPU of its own."""

UNFINISHED: set[Status] = {"running", "interrupted"}
"""What a search that resumes continues."""

Metrics = dict[str, float]
"""Values by metric key, such as `fid`, `kid`, `l1`."""


class EvaluationRecord(Section):
    """One evaluation of a trial."""

    images: int
    """Images shown until then."""

    metrics: Metrics
    seconds: float | None = None
    """Seconds the trial trained and was evaluated until then; None in older records."""


class StartRecord(Section):
    """How much of its generator a trial has from `--start-from`."""

    taken_over: int
    """Tensors with the exported generator's values."""

    left_out: int
    """Tensors that no exported one fits: they began as without it."""


class TrialRecord(Section):
    """One trial."""

    id: str
    number: int
    """Counts the trials of a search in the order of their proposals, from 0; of a retraining the
    number of its finalist."""

    architecture: str
    parameters: dict[str, Any]
    """As they are now: with pbt they change while the trial trains."""

    budget: TrialBudget
    """Of a retraining, its finalist's."""

    history: list[EvaluationRecord] = Field(default_factory=list[EvaluationRecord])
    status: Status = "running"
    reason: str = ""
    """Why it was stopped, diverged, failed or was interrupted; empty otherwise."""

    images: int = 0
    """Images shown until its last evaluation."""

    seconds: float = 0.0
    """Seconds it trained and was evaluated until then."""

    checkpoint: str | None = None
    """The generator of its last evaluation, relative to the output; None before the first."""

    objective: dict[str, float] = Field(default_factory=dict[str, float])
    """The mean over its last evaluations, by what is minimized. Empty before the first."""

    beats_inverted_grey: bool | None = None
    """None until the baselines are measured."""

    start: StartRecord | None = None
    """None without `--start-from`, for other architectures, and before the first evaluation."""

    exploits: list[ExploitRecord] = Field(default_factory=list[ExploitRecord])
    """Each time that it continued from another trial's state, with other parameters (pbt)."""

    @model_validator(mode="after")
    def _require_one_history(self) -> Self:
        shown = [evaluation.images for evaluation in self.history]
        if shown != sorted(set(shown)):
            raise ValueError("history must have evaluations of increasing images")
        if self.images != (shown[-1] if shown else 0):
            raise ValueError("images must be those of the last evaluation")
        compared = [exploit.images for exploit in self.exploits]
        if compared != sorted(set(compared)) or not set(compared) <= set(shown):
            raise ValueError("exploits must follow evaluations, each another one")
        if not all(e.schedule and e.schedule[0].images == 0 for e in self.exploits):
            raise ValueError("the schedule of an exploit must begin at image 0")
        return self

    @property
    def proposed(self) -> dict[str, Any]:
        """The parameters that it began with."""
        return undo(self.parameters, self.exploits)

    def parameters_at(self, images: int) -> dict[str, Any]:
        """Its own parameters until an evaluation after so many images."""
        return undo(self.parameters, [e for e in self.exploits if e.images >= images])

    def schedule_until(self, images: int) -> list[ScheduledParameters]:
        """What the weights of its evaluation after so many images were trained with, by this trial
        and its ancestors: a schedule, of one entry if nothing has changed."""
        passed = [exploit for exploit in self.exploits if exploit.images < images]
        parameters = self.parameters_at(images)
        if not passed:
            return [ScheduledParameters(images=0, parameters=parameters)]
        last = passed[-1]
        now = ScheduledParameters(images=last.donor_images, parameters=parameters)
        return [*last.schedule, now]

    @property
    def schedule(self) -> list[ScheduledParameters]:
        """What its weights are trained with from now on, and have been."""
        return self.schedule_until(MAX_IMAGES)

    def ancestors_until(self, images: int) -> list[str]:
        """The trials that had trained the weights of its evaluation after so many images, itself
        the last."""
        passed = [exploit for exploit in self.exploits if exploit.images < images]
        return [*passed[-1].ancestors, self.id] if passed else [self.id]

    @property
    def lineage(self) -> list[str]:
        """The trials that have trained its weights, in their order, itself the last."""
        return self.ancestors_until(MAX_IMAGES)

    @property
    def is_out_of_time(self) -> bool:
        """Whether it was stopped because the time of the search was over."""
        return self.status == "stopped" and self.reason == OUT_OF_TIME

    @property
    def is_over(self) -> bool:
        """Whether nothing continues it: it has its full budget, or the scheduler stopped it."""
        return self.status in ("completed", "stopped") and not self.is_out_of_time

    @property
    def needs_whole_gpu(self) -> bool:
        """Whether it waits for a GPU of its own, because it did not fit its share of one."""
        return self.status == "interrupted" and self.reason.startswith(OUT_OF_SHARED_MEMORY)

    @property
    def share(self) -> float:
        """The fraction of its budget that it has shown, 0 .. 1."""
        return min(self.images / self.budget.images, 1.0)


class RetrainingRecord(TrialRecord):
    """A finalist's parameters, trained again with another seed: with pbt, its schedule."""

    finalist: str
    """The trial whose parameters these are."""

    seed: int
    retrained: list[ScheduledParameters] = Field(default_factory=list[ScheduledParameters])
    """With pbt, the finalist's parameters by images; empty if they are `parameters` throughout."""

    test_metrics: Metrics = Field(default_factory=dict[str, float])
    """Measured once on the test split, after training has ended."""


class TrialFile(Document):
    """One trial in a file of its own: TRIAL/trial.json."""

    REMEDY: ClassVar[str] = (
        "restore the file, or remove the trial's folder so that a resumed search repeats the trial"
    )

    version: Literal[2] = 2
    trial: TrialRecord


class RetrainingFile(TrialFile):
    """The same of a retraining."""

    trial: RetrainingRecord  # pyright: ignore[reportIncompatibleVariableOverride] - never assigned


class TimeFile(Document):
    """OUTPUT/time.json: the time of a search with --hours."""

    REMEDY: ClassVar[str] = "remove the file: the search then has all of its hours again"

    version: Literal[1] = 1
    seconds: float
    """Spent so far, over all runs of the search."""

    are_trials_over: bool = False
    """Whether the time for trials is over, so that what has completed is ranked."""

    are_retrainings_over: bool = False
    """Whether the time for retrainings is over, so that those that completed are ranked."""

    hours_when_over: float = 0.0
    """What --hours was then: with more, the search continues."""


class BaselinesFile(Document):
    """OUTPUT/baselines.json: metrics of what needs no training, by name."""

    REMEDY: ClassVar[str] = "remove the file: the next evaluation writes it again"

    version: Literal[1] = 1
    validation: dict[str, Metrics]
    test: dict[str, Metrics] = Field(default_factory=dict[str, Metrics])
    """Empty until a retraining has completed."""


class MeanAndStd(Section):
    mean: float
    std: float | None
    """The standard deviation over seeds; None for one seed."""


class RankedFinalist(Section):
    """A finalist, by the retrainings that completed."""

    finalist: str
    """Its trial's id."""

    architecture: str
    seeds: list[int]
    failed: int
    """Retrainings that failed or diverged."""

    values: list[float]
    """The objective of each seed."""

    objective: MeanAndStd
    test_metrics: dict[str, MeanAndStd]


class FinalRanking(Section):
    """The finalists, ranked by the mean objective of their retrainings on the validation split."""

    finalist: str
    """The winner's trial."""

    architecture: str
    generator: str
    """The winner's retraining with the lowest objective: what `export` writes."""

    objective: str
    """What is minimized, such as `fid` or `fid+10*lpips`."""

    beats_inverted_grey: bool | None
    """Whether that retraining does so on the test split; None without a test split."""

    ranking: list[RankedFinalist]

    @property
    def winner(self) -> RankedFinalist:
        return self.ranking[0]


class Summary(Document):
    """Everything that a search has found so far, for programs. The search itself never reads it."""

    REMEDY: ClassVar[str] = "resume the search, which writes it again"

    version: Literal[3] = 3
    metric: str
    """The key of the Frechet distance: `fid` on Inception's features, `fd_...` on others."""

    features: str
    objective: str
    """What is minimized, as --objective says it."""

    average_last: int
    protocol: dict[str, str | int]
    """How every metric is measured."""

    baselines: dict[str, Metrics]
    """Metrics of what needs no training, by name, on the validation split."""

    test_baselines: dict[str, Metrics]
    trials: list[TrialRecord]
    best: str | None
    """The id of the best trial; None before the first evaluation."""

    pareto_front: list[str]
    """Ids, if the objective has two axes; else empty."""

    lineages: dict[str, list[str]] = Field(default_factory=dict[str, list[str]])
    """With pbt, of each trial that has continued from another: the trials that have trained its
    weights, in their order, itself the last."""

    retrainings: list[RetrainingRecord]
    final_ranking: FinalRanking | None
    """None until every retraining has ended."""
