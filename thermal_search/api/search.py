"""`ts.search` and what it returns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thermal_search import export as exporting
from thermal_search.api import Place
from thermal_search.choices import ExportFormat
from thermal_search.errors import SettingsError
from thermal_search.report.page import write_after_search, write_report
from thermal_search.storage import Location
from thermal_search.tuning.launch import launch
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import LaunchSettings, SearchSettings
from thermal_search.tuning.summary import TrialRecord

if TYPE_CHECKING:
    import pandas as pd


def search(**settings: Any) -> "SearchResult":
    """Searches for the best generator, on this machine or on a Ray cluster, until all trials ended.

    Args:
        settings: fields of `SearchSettings`, of which `data` and `output` are required, and of
            `LaunchSettings` (`resume`, `address`, `storage`, `wait_for_nodes`, `wait_minutes`).
            The budget of a trial is `images=200_000` shown, or by default equal compute.

    Raises SearchError, DatasetError or WeightsUnavailable before anything starts if the search
    cannot run, SearchStopped or SearchInterrupted if it stops before its end: `resume=True`
    continues it then.
    """
    if "config" in settings:
        raise SettingsError("config is a flag of the command line: pass its settings themselves.")
    if settings.get("dry_run"):
        raise SettingsError("dry_run is a flag of the command line: `thermal-search search`.")
    launching = {
        name: settings.pop(name) for name in LaunchSettings.model_fields if name in settings
    }
    record = launch(SearchSettings(**settings), LaunchSettings(**launching))
    write_after_search(record)
    record.require_results()
    return SearchResult(record)


def open_search(output: Place) -> "SearchResult":
    """The results of a search so far, from its output folder; SearchError if there is none."""
    return SearchResult(SearchRecord.load(Location.of(output)))


@dataclass(frozen=True)
class SearchResult:
    """What a search has found."""

    record: SearchRecord

    @property
    def output(self) -> Location:
        """The folder of the search."""
        return self.record.output

    @property
    def best(self) -> TrialRecord:
        """The trial whose generator `export` writes: the retraining that won the final ranking, or
        without one the best trial. Its `objective` is the lower the better.

        Raises SearchError if no trial has been evaluated.
        """
        return exporting.best_of(self.record).record

    @property
    def ranking(self) -> list[TrialRecord]:
        """The evaluated trials, best first; those that completed before all others."""
        return self.record.ranking()

    def dataframe(self) -> "pd.DataFrame":
        """One row for each trial, in the order of their numbers, with the id as its index.

        Columns: `architecture`, `status`, `reason`, `images` (shown), `seconds` (of training and
        evaluation), `objective.KEY` (what is minimized), `metrics.KEY` (of the last evaluation) and
        `parameters.NAME`. What a trial does not have is NaN.
        """
        import pandas as pd

        return pd.DataFrame(
            [_row(trial) for trial in self.record.trials.values()],
            index=pd.Index(list(self.record.trials), name="id"),
        )

    def export(
        self,
        to: Place | None = None,
        *,
        trial: str | None = None,
        formats: Sequence[ExportFormat] = exporting.DEFAULT_FORMATS,
    ) -> Location:
        """Writes a generator with a model card, and returns its folder.

        Args:
            to: an empty folder or an earlier export; by default `generator` in the output.
            trial: the id of a trial or retraining; by default the best.
            formats: safetensors, which are always written, `pt2` and `onnx`.

        Raises ExportMismatch if the export generates other images than the trained generator,
        SearchError if the folder holds anything else.
        """
        place = Location.of(to) if to is not None else None
        return exporting.export(self.output, place, trial=trial, formats=formats)

    def report(self, to: Place | None = None) -> Location:
        """Writes the results so far as one HTML file, and returns it.

        Args:
            to: the file; by default `report.html` in the output.
        """
        return write_report(self.output, Location.of(to) if to is not None else None)


def _row(trial: TrialRecord) -> dict[str, Any]:
    metrics = trial.history[-1].metrics if trial.history else {}
    return {
        "architecture": trial.architecture,
        "status": trial.status,
        "reason": trial.reason,
        "images": trial.images,
        "seconds": trial.seconds,
        **{f"objective.{key}": value for key, value in trial.objective.items()},
        **{f"metrics.{key}": value for key, value in metrics.items()},
        **{f"parameters.{name}": value for name, value in trial.parameters.items()},
    }
