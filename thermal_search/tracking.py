"""MLflow: one parent run a search, one child run a trial.

Only the process that drives the search logs: workers never import MLflow. Every run carries the
search's id, so that a resumed search goes on in the same runs.
"""

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from thermal_search.errors import SearchError

EXPERIMENT = "thermal-search"
SEARCH_TAG = "thermal_search.search"
TRIAL_TAG = "thermal_search.trial"
STATUSES = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "diverged": "FAILED",
    "failed": "FAILED",
    "running": "RUNNING",
}
LONGEST_PARAMETER = 500
LONGEST_REASON = 4000

log = logging.getLogger(__name__)


def store_of(output: Path) -> str:
    """Where the runs of a search are: MLFLOW_TRACKING_URI, or a SQLite file in its folder.

    Absolute, because Ray changes the working directory.
    """
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{output.absolute()}/mlflow.db"


class SearchLog:
    """The runs of one search. Opening it again with the same id finds the same runs."""

    def __init__(self, output: Path, search_id: str, settings: Mapping[str, Any]) -> None:
        # The database's upgrade steps are news to nobody.
        for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.db_migrations"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        self.client = MlflowClient(store_of(output))
        self.search_id = search_id
        self.experiment_id = self._experiment(output)
        self.runs = {
            run.data.tags[TRIAL_TAG]: run
            for run in self._find(f"tags.`{SEARCH_TAG}` = '{search_id}'")
            if TRIAL_TAG in run.data.tags
        }
        parents = [
            run
            for run in self._find(f"tags.`{SEARCH_TAG}` = '{search_id}'")
            if TRIAL_TAG not in run.data.tags
        ]
        self.parent = parents[0] if parents else self._start_parent(output.name, settings)
        self._set_status(self.parent, "running")

    def start_trial(
        self,
        id: str,
        architecture: str,
        parameters: Mapping[str, Any],
        marks: Mapping[str, str] | None = None,
    ) -> None:
        """A child run for a trial; the one it already has, where it goes on after a crash. `marks`
        become its tags."""
        if id in self.runs:
            self._set_status(self.runs[id], "running")
            return
        tags = {
            SEARCH_TAG: self.search_id,
            TRIAL_TAG: id,
            "mlflow.parentRunId": self.parent.info.run_id,
            **(marks or {}),
        }
        run = self.client.create_run(
            self.experiment_id, tags=tags, run_name=f"{architecture} {id[-5:]}"
        )
        self.runs[id] = run
        named = {"architecture": architecture, **parameters}
        self.client.log_batch(run.info.run_id, params=_params(named))

    def log_evaluation(
        self, id: str, images: int, values: Mapping[str, float], grid: Path | None = None
    ) -> None:
        """The values of one evaluation by images shown, in one batch, and its picture grid."""
        run_id = self.runs[id].info.run_id
        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, images) for name, value in values.items()]
        self.client.log_batch(run_id, metrics=metrics)
        if grid is not None and grid.exists():
            with Image.open(grid) as picture:
                self.client.log_image(run_id, picture, key="rgb_real_generated", step=images)

    def logged_images(self, id: str, metric: str) -> set[int]:
        """The evaluations of a trial that are in the store already."""
        if id not in self.runs:
            return set()
        history = self.client.get_metric_history(self.runs[id].info.run_id, metric)
        return {point.step for point in history}

    def end_trial(
        self, id: str, status: str, reason: str, marks: Mapping[str, str] | None = None
    ) -> None:
        """Closes a trial's run with how and why it ended. `marks` become its tags."""
        run_id = self.runs[id].info.run_id
        tags = [RunTag("status", status), RunTag("reason", reason[:LONGEST_REASON])]
        tags += [RunTag(name, value) for name, value in (marks or {}).items()]
        diverged = [Metric("diverged", 1.0, int(time.time() * 1000), 0)]
        self.client.log_batch(run_id, tags=tags, metrics=diverged if status == "diverged" else [])
        self.client.set_terminated(run_id, STATUSES[status])

    def forget(self, ids: Sequence[str]) -> None:
        """Deletes the runs of trials that were lost before their first evaluation."""
        for id in ids:
            if id in self.runs:
                self.client.delete_run(self.runs.pop(id).info.run_id)

    def end(self, metric: str, best: tuple[str, float] | None) -> None:
        """Closes the search's own run with its best trial."""
        run_id = self.parent.info.run_id
        if best:
            id, score = best
            self.client.log_batch(
                run_id,
                metrics=[Metric(f"best_{metric}", score, int(time.time() * 1000), 0)],
                tags=[
                    RunTag("best_trial", id),
                    RunTag("best_run", self.runs[id].info.run_id),
                ],
            )
        self.client.set_terminated(run_id, "FINISHED")

    def decide(self, values: Mapping[str, float], marks: Mapping[str, str]) -> None:
        """Writes what came out in the end into the search's own run, as metrics and tags."""
        now = int(time.time() * 1000)
        self.client.log_batch(
            self.parent.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in values.items()],
            tags=[RunTag(name, value) for name, value in marks.items()],
        )

    def attach(self, file: Path) -> None:
        """Keeps a file with the search's own run."""
        self.client.log_artifact(self.parent.info.run_id, str(file))

    def _experiment(self, output: Path) -> str:
        if known := self.client.get_experiment_by_name(EXPERIMENT):
            return known.experiment_id
        # A server keeps the pictures where it likes; beside our own database they go next to it.
        local = "MLFLOW_TRACKING_URI" not in os.environ
        place = (output.absolute() / "mlflow-artifacts").as_uri() if local else None
        try:
            return self.client.create_experiment(EXPERIMENT, artifact_location=place)
        except MlflowException:
            # Another search on the same server was faster.
            if known := self.client.get_experiment_by_name(EXPERIMENT):
                return known.experiment_id
            raise

    def _find(self, condition: str) -> list[Run]:
        found: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment_id], condition, page_token=token)
            found += page
            token = page.token
            if not token:
                return found

    def _start_parent(self, name: str, settings: Mapping[str, Any]) -> Run:
        run = self.client.create_run(
            self.experiment_id, tags={SEARCH_TAG: self.search_id}, run_name=f"search {name}"
        )
        self.client.log_batch(run.info.run_id, params=_params(settings))
        return run

    def _set_status(self, run: Run, status: str) -> None:
        self.client.update_run(run.info.run_id, status=STATUSES[status])


def _params(values: Mapping[str, Any]) -> list[Param]:
    return [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in values.items()]


def serve_ui(output: Path, *, host: str, port: int) -> None:
    """Serves the MLflow UI of the search in `output` until it is interrupted."""
    if not (output / "summary.json").exists():
        raise SearchError(
            f"{output} holds no search (summary.json is missing): pass the --output folder of one."
        )
    if "MLFLOW_TRACKING_URI" in os.environ:
        raise SearchError(
            f"The runs are on the server {os.environ['MLFLOW_TRACKING_URI']}: open it in a browser."
        )
    print(f"http://{host}:{port} shows the search in {output}; Ctrl-C ends it.", flush=True)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--backend-store-uri", store_of(output), "--host", host, "--port", str(port)]
    # No background jobs: ten processes that a local look at the runs does not need.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # In the place of this process, so that whoever ends it ends the server.
    os.execv(sys.executable, command)
