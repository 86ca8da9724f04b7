"""The result of a search as programs read it: OUTPUT/summary.json."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from thermal_search.documents import Document, Section
from thermal_search.errors import SearchError
from thermal_search.storage import Location

FILE = "summary.json"

Status = Literal["running", "completed", "stopped", "diverged", "failed"]
"""`completed`: trained for its whole budget. `stopped`: ended early by the scheduler."""

Metrics = dict[str, float]
"""Values by metric key, such as `fid`, `kid`, `l1`."""


class EvaluationRecord(Section):
    """One evaluation of a trial."""

    images: int
    """Images shown until then."""

    metrics: Metrics


class TrialRecord(Section):
    """One trial."""

    id: str
    architecture: str
    parameters: dict[str, Any]
    history: list[EvaluationRecord] = Field(default_factory=list[EvaluationRecord])
    status: Status = "running"
    reason: str = ""
    """Why it was stopped, diverged or failed; empty otherwise."""

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


class RetrainingRecord(TrialRecord):
    """A finalist's parameters, trained again with another seed."""

    finalist: str
    """The trial whose parameters these are."""

    seed: int
    test_metrics: Metrics = Field(default_factory=dict[str, float])
    """Measured once on the test split, after training has ended."""


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
    """Everything that a search has found so far."""

    REMEDY: ClassVar[str] = "restore the file, or start a new search in another --output folder"

    version: Literal[1] = 1
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

    retrainings: list[RetrainingRecord]
    final_ranking: FinalRanking | None
    """None until every retraining has ended."""

    @classmethod
    def load(cls, output: Location) -> "Summary":
        """The summary of the search in an output folder; SearchError if there is none."""
        try:
            return cls.read(output / FILE)
        except FileNotFoundError:
            raise SearchError(
                f"{output} holds no search ({FILE} is missing): pass the --output folder of one."
            ) from None
