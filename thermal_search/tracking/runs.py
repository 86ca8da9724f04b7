"""MLflow: one parent run a search, one child run a trial.

Only the process that drives the search logs: workers never import MLflow. Every run carries the
search's id, so that a resumed search goes on in the same runs.
"""

import contextlib
import logging
import os
import re
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping, Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from thermal_search.errors import SearchError
from thermal_search.storage import Location

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

SHORT_WAITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""MLflow's own patience with a server. Ours is in tracking/log_queue.py, and keeps the order."""

log = logging.getLogger(__name__)


def store_of(output: Location) -> str:
    """Where the runs of a search are: MLFLOW_TRACKING_URI, or a SQLite file in its folder.

    Absolute, because Ray changes the working directory. SearchError for a folder in a bucket: a
    database cannot be there, and one on this machine would be lost with it.
    """
    if server := os.environ.get("MLFLOW_TRACKING_URI"):
        return server
    if output.local is None:
        raise SearchError(
            f"{output} is in a bucket, where MLflow cannot keep its runs: set MLFLOW_TRACKING_URI "
            "to a tracking server (docs/tracking-server.md)."
        )
    return f"sqlite:///{output.absolute()}/mlflow.db"


def require_store(output: Location, timeout_s: float = 60.0) -> None:
    """SearchError, in a sentence, where the runs of a search would have no place to go."""
    store = store_of(output)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return
    if store.startswith(("http://", "https://")):
        _wait_for_server(store, timeout_s)
    with _refusals_told(store):
        _client_of(store).get_experiment_by_name(EXPERIMENT)


def _wait_for_server(store: str, timeout_s: float) -> None:
    address, told = without_password(store), False
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            # Open to all on a server that asks for a password, too.
            with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10):
                return
        except (OSError, ValueError) as error:
            if isinstance(error, HTTPError) and error.code < 500:
                return  # it answers; what it answers is for MLflow to judge
            if time.monotonic() > deadline:
                raise SearchError(
                    f"No tracking server answers at {address} ({error}): start it, or mend "
                    "MLFLOW_TRACKING_URI."
                ) from None
            if not told:
                log.warning("No tracking server answers at %s yet; waiting.", address)
                told = True
            time.sleep(1)


@contextlib.contextmanager
def _refusals_told(store: str) -> Generator[None]:
    """Turns a store's refusal into a sentence; every kind of store raises errors of its own."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
        if password := urlsplit(store).password:
            reason = reason.replace(password, "***")
        raise SearchError(
            f"MLflow cannot keep runs at {without_password(store)} ({reason[:300]}): mend "
            "MLFLOW_TRACKING_URI, or unset it."
        ) from None


def _client_of(store: str) -> MlflowClient:
    # The database's upgrade steps are news to nobody.
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.db_migrations"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name, value in SHORT_WAITS.items():
        os.environ.setdefault(name, value)
    return MlflowClient(store)


def without_password(text: str) -> str:
    """An address, or words that hold some, without the users and passwords before their hosts."""
    return re.sub(r"//[^/\s]*@", "//", text)


class SearchLogger:
    """The runs of one search. Opened again with the same id, it finds the same runs."""

    def __init__(self, output: Location, search_id: str, settings: Mapping[str, Any]) -> None:
        self.client = _client_of(store_of(output))
        self.output, self.search_id, self.settings = output, search_id, settings
        self.times: dict[tuple[object, ...], int] = {}

    def begin(self) -> None:
        """Opens; SearchError, in a sentence, where the store does not let us."""
        with _refusals_told(store_of(self.output)):
            self.open()

    def open(self) -> None:
        """Finds the search's runs in the store, or begins its own. Before anything else."""
        self.experiment_id = self._experiment(self.output)
        self.runs = {
            run.data.tags[TRIAL_TAG]: run
            for run in self._find(f"tags.`{SEARCH_TAG}` = '{self.search_id}'")
            if TRIAL_TAG in run.data.tags
        }
        parents = [
            run
            for run in self._find(f"tags.`{SEARCH_TAG}` = '{self.search_id}'")
            if TRIAL_TAG not in run.data.tags
        ]
        self.parent = parents[0] if parents else self._start_parent()
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
        run = self._run_of(id) or self.client.create_run(
            self.experiment_id, tags=tags, run_name=f"{architecture} {id[-5:]}"
        )
        named = {"architecture": architecture, **parameters}
        self.client.log_batch(run.info.run_id, params=_params(named))
        # Known only now: if the server went away in between, all of this is done again.
        self.runs[id] = run

    def log_evaluation(
        self, id: str, images: int, values: Mapping[str, float], grid: Location | None = None
    ) -> None:
        """The values of one evaluation by images shown, in one batch, and its image grid."""
        run_id = self.runs[id].info.run_id
        now = self._time_of(id, images)
        metrics = [Metric(name, float(value), now, images) for name, value in values.items()]
        self.client.log_batch(run_id, metrics=metrics)
        if grid is not None and grid.exists():
            with grid.open_input() as file, Image.open(file) as image:
                self.client.log_image(run_id, image, key="rgb_real_generated", step=images)

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
        diverged = [Metric("diverged", 1.0, self._time_of(id, "diverged"), 0)]
        self.client.log_batch(run_id, tags=tags, metrics=diverged if status == "diverged" else [])
        self.client.set_terminated(run_id, STATUSES[status])

    def mark(self, id: str, marks: Mapping[str, str]) -> None:
        """Tags a trial's run."""
        tags = [RunTag(name, value) for name, value in marks.items()]
        self.client.log_batch(self.runs[id].info.run_id, tags=tags)

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
                metrics=[Metric(f"best_{metric}", score, self._time_of(metric, score), 0)],
                tags=[
                    RunTag("best_trial", id),
                    RunTag("best_run", self.runs[id].info.run_id),
                ],
            )
        self.client.set_terminated(run_id, "FINISHED")

    def decide(self, values: Mapping[str, float], marks: Mapping[str, str]) -> None:
        """Writes what came out in the end into the search's own run, as metrics and tags."""
        now = self._time_of(*values)
        self.client.log_batch(
            self.parent.info.run_id,
            metrics=[Metric(name, value, now, 0) for name, value in values.items()],
            tags=[RunTag(name, value) for name, value in marks.items()],
        )

    def attach(self, image: Location) -> None:
        """Keeps an image with the search's own run."""
        with image.open_input() as file, Image.open(file) as opened:
            self.client.log_image(self.parent.info.run_id, opened, artifact_file=image.name)

    def _time_of(self, *entry: object) -> int:
        """One time for each entry: told twice, because an answer was lost, it is the same point."""
        return self.times.setdefault(entry, int(time.time() * 1000))

    def _run_of(self, id: str) -> Run | None:
        """A trial's run in the store: the answer to its making may have been lost."""
        found = self._find(
            f"tags.`{SEARCH_TAG}` = '{self.search_id}' and tags.`{TRIAL_TAG}` = '{id}'"
        )
        return found[0] if found else None

    def _experiment(self, output: Location) -> str:
        if known := self.client.get_experiment_by_name(EXPERIMENT):
            return known.experiment_id
        # A server keeps the images where it likes; beside our own database they go next to it.
        local = "MLFLOW_TRACKING_URI" not in os.environ
        place = (output / "mlflow-artifacts").uri if local else None
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

    def _start_parent(self) -> Run:
        tags = {SEARCH_TAG: self.search_id}
        name = f"search {self.output.name}"
        run = self.client.create_run(self.experiment_id, tags=tags, run_name=name)
        self.client.log_batch(run.info.run_id, params=_params(self.settings))
        return run

    def _set_status(self, run: Run, status: str) -> None:
        self.client.update_run(run.info.run_id, status=STATUSES[status])


def _params(values: Mapping[str, Any]) -> list[Param]:
    return [Param(name, str(value)[:LONGEST_PARAMETER]) for name, value in values.items()]


def serve_ui(output: Location, *, host: str, port: int) -> None:
    """Serves the MLflow UI of the search in `output` until it is interrupted."""
    if not (output / "summary.json").exists():
        raise SearchError(
            f"{output} holds no search (summary.json is missing): pass the --output folder of one."
        )
    if "MLFLOW_TRACKING_URI" in os.environ:
        raise SearchError(
            f"The runs are on the server {without_password(os.environ['MLFLOW_TRACKING_URI'])}: "
            "open it in a browser."
        )
    print(f"http://{host}:{port} shows the search in {output}; Ctrl-C ends it.", flush=True)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--backend-store-uri", store_of(output), "--host", host, "--port", str(port)]
    # No background jobs: ten processes that a local look at the runs does not need.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # In the place of this process, so that whoever ends it ends the server.
    os.execv(sys.executable, command)
