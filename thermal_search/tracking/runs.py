"""The MLflow runs of a search: one parent run per search, one child run per trial.

Only the process that drives the search logs: workers never import MLflow. Every run carries the
search's id as a tag, so that a resumed search continues in the same runs.
"""

import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow.entities import DatasetInput, Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from PIL import Image

from thermal_search.storage import Location
from thermal_search.tracking.provenance import source_tags
from thermal_search.tracking.store import (
    EXPERIMENT,
    artifacts_of,
    client_of,
    errors_as_sentences,
    store_of,
    tracking_server,
)
from thermal_search.tracking.view import SearchView

SEARCH_TAG = "thermal_search.search"
TRIAL_TAG = "thermal_search.trial"
NOTE_TAG = "mlflow.note.content"
"""MLflow's description of a run, in Markdown."""

SYSTEM_GROUP = "system"
"""MLflow shows the metrics `system/...` apart from all others."""

GRID = "rgb_real_generated"
"""The key of the image grids."""

STATUSES = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "running": "RUNNING",
    "interrupted": "KILLED",
}
"""MLflow's status of a run, by the status of a trial."""
MAX_PARAMETER_LENGTH = 500
MAX_TAG_LENGTH = 5000
"""What every store of MLflow accepts."""


class SearchLogger:
    """The runs of one search. Opened with the same id again, it finds the same runs."""

    def __init__(
        self,
        output: Location,
        search_id: str,
        settings: Mapping[str, Any],
        *,
        dataset: DatasetInput | None = None,
        view: SearchView | None = None,
    ) -> None:
        """
        Args:
            settings: parameters of the search's own run.
            dataset: what every trial trains on, as an input of its run.
            view: how the MLflow UI shows the search.
        """
        self.client = client_of(store_of(output))
        self.output, self.search_id, self.settings = output, search_id, settings
        self.dataset, self.view = dataset, view
        self.groups: frozenset[str] = frozenset()
        self.is_view_saved = False
        self.times: dict[tuple[object, ...], int] = {}

    def begin(self) -> None:
        """Opens; raises SearchError if the store refuses."""
        with errors_as_sentences(store_of(self.output)):
            self.open()

    def open(self) -> None:
        """Finds the search's runs in the store, or creates the parent run. Comes first."""
        self.experiment_id = self._experiment(self.output)
        self._save_view()
        found = self._find(f"tags.`{SEARCH_TAG}` = '{self.search_id}'")
        self.runs = {r.data.tags[TRIAL_TAG]: r for r in found if TRIAL_TAG in r.data.tags}
        parents = [run for run in found if TRIAL_TAG not in run.data.tags]
        self.parent = parents[0] if parents else self._start_parent()
        self._set_status(self.parent, "running")

    def start_trial(
        self,
        id: str,
        architecture: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Creates a child run for a trial, or reopens the one it has."""
        if id in self.runs:
            self._set_status(self.runs[id], "running")
            self.set_tags(id, {"status": "running"})
            return
        run_tags = {
            SEARCH_TAG: self.search_id,
            TRIAL_TAG: id,
            "mlflow.parentRunId": self.parent.info.run_id,
            "architecture": architecture,
            "status": "running",
            **source_tags(),
            **(tags or {}),
        }
        run = self._run_of(id) or self.client.create_run(
            self.experiment_id, tags=run_tags, run_name=f"{architecture} {id}"
        )
        self._log_dataset(run)
        params = _params({"architecture": architecture, **parameters})
        self.client.log_batch(run.info.run_id, params=params)
        # Only now: if the server goes away in between, all of this is retried.
        self.runs[id] = run

    def log_evaluation(
        self,
        id: str,
        images: int,
        values: Mapping[str, float],
        grid: Location | None = None,
        *,
        grid_step: int | None = None,
    ) -> None:
        """The values of one evaluation by images shown, in one batch, and its image grid.

        Args:
            grid_step: the step of the grid, if it is not `images`.
        """
        run_id = self.runs[id].info.run_id
        now = self._time_of(id, images)
        metrics = [Metric(name, float(value), now, images) for name, value in values.items()]
        self.client.log_batch(run_id, metrics=metrics)
        self._save_view(name.rpartition("/")[0] for name in values)
        if grid is not None:
            self.log_grid(id, images if grid_step is None else grid_step, grid)

    def log_grid(self, id: str, step: int, grid: Location) -> None:
        """An image grid of a trial, unless its file is missing."""
        if grid.exists():
            with grid.open_input() as file, Image.open(file) as image:
                self.client.log_image(self.runs[id].info.run_id, image, key=GRID, step=step)

    def has_grid(self, id: str, step: int) -> bool:
        """Whether the store has a trial's image grid of a step."""
        files = self.client.list_artifacts(self.runs[id].info.run_id, "images")
        # MLflow's own name of an image: KEY%step%STEP%timestamp%..., with + for % in some versions.
        names = [Path(file.path).name.replace("+", "%") for file in files]
        return any(name.startswith(f"{GRID}%step%{step}%") for name in names)

    def logged_images(self, id: str, metric: str) -> set[int]:
        """The evaluations of a trial that are in the store already."""
        if id not in self.runs:
            return set()
        history = self.client.get_metric_history(self.runs[id].info.run_id, metric)
        return {point.step for point in history}

    def end_trial(
        self, id: str, status: str, reason: str, tags: Mapping[str, str] | None = None
    ) -> None:
        """Ends a trial's run with its status and reason."""
        run_id = self.runs[id].info.run_id
        run_tags = [RunTag("status", status), RunTag("reason", reason[:MAX_TAG_LENGTH])]
        run_tags += [RunTag(name, value[:MAX_TAG_LENGTH]) for name, value in (tags or {}).items()]
        diverged = [Metric("diverged", 1.0, self._time_of(id, "diverged"), 0)]
        self.client.log_batch(
            run_id, tags=run_tags, metrics=diverged if status == "diverged" else []
        )
        self.client.set_terminated(run_id, STATUSES[status])

    def set_tags(self, id: str, tags: Mapping[str, str]) -> None:
        """Tags a trial's run."""
        run_tags = [RunTag(name, value[:MAX_TAG_LENGTH]) for name, value in tags.items()]
        self.client.log_batch(self.runs[id].info.run_id, tags=run_tags)

    def end(self, status: str) -> None:
        """Ends the search's own run. `status`: as that of a trial."""
        self.client.set_terminated(self.parent.info.run_id, STATUSES[status])

    def run_id_of(self, id: str) -> str:
        """The id of a trial's run."""
        run = self.runs.get(id) or self._run_of(id)
        return run.info.run_id if run else ""

    def log_summary(self, values: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Logs metrics and tags of the whole search to its own run."""
        now = self._time_of(*values)
        self.client.log_batch(
            self.parent.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in values.items()],
            tags=[RunTag(name, value[:MAX_TAG_LENGTH]) for name, value in tags.items()],
        )

    def describe(self, note: str) -> None:
        """Replaces the description of the search's own run, in Markdown."""
        if len(note) > MAX_TAG_LENGTH:
            note = note[: MAX_TAG_LENGTH - 4].rpartition("\n")[0] + "\n..."
        self.client.set_tag(self.parent.info.run_id, NOTE_TAG, note)

    def log_file(self, file: Location) -> None:
        """Logs a file, if there is one, as an artifact of the search's own run."""
        if not file.is_file():
            return
        run_id = self.parent.info.run_id
        if file.local:
            self.client.log_artifact(run_id, str(file.local))
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / file.name
            copy.write_bytes(file.read_bytes())
            self.client.log_artifact(run_id, str(copy))

    def _save_view(self, groups: Iterable[str] = ()) -> None:
        """Saves the view, again if there are new groups of metrics."""
        new = set(groups) - self.groups - {"", SYSTEM_GROUP}
        if self.view and (new or not self.is_view_saved):
            self.groups = self.view.save(self.client, self.experiment_id, self.groups | new)
            self.is_view_saved = True

    def _time_of(self, *entry: object) -> int:
        """One time per entry: if it is sent twice, because an answer was lost, it is one point."""
        return self.times.setdefault(entry, int(time.time() * 1000))

    def _run_of(self, id: str) -> Run | None:
        """A trial's run in the store: the answer to its creation may have been lost."""
        runs = self._find(
            f"tags.`{SEARCH_TAG}` = '{self.search_id}' and tags.`{TRIAL_TAG}` = '{id}'"
        )
        return runs[0] if runs else None

    def _experiment(self, output: Location) -> str:
        if known := self.client.get_experiment_by_name(EXPERIMENT):
            return known.experiment_id
        # A server chooses where it stores images; those of our own database go next to it.
        location = None if tracking_server() else artifacts_of(output)
        try:
            return self.client.create_experiment(EXPERIMENT, artifact_location=location)
        except MlflowException:
            # Another search on the same server was faster.
            if known := self.client.get_experiment_by_name(EXPERIMENT):
                return known.experiment_id
            raise

    def _find(self, condition: str) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment_id], condition, page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _start_parent(self) -> Run:
        tags = {SEARCH_TAG: self.search_id, **source_tags()}
        name = f"search {self.output.name}"
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        self._log_dataset(run)
        self.client.log_batch(run.info.run_id, params=_params(self.settings))
        return run

    def _log_dataset(self, run: Run) -> None:
        if self.dataset:
            self.client.log_inputs(run.info.run_id, datasets=[self.dataset])

    def _set_status(self, run: Run, status: str) -> None:
        self.client.update_run(run.info.run_id, status=STATUSES[status])


def _params(values: Mapping[str, Any]) -> list[Param]:
    return [Param(name, str(value)[:MAX_PARAMETER_LENGTH]) for name, value in values.items()]
