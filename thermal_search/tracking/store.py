"""Where the MLflow runs of a search are stored, and whether that store can be reached."""

import contextlib
import logging
import os
import re
import time
import urllib.request
from collections.abc import Generator
from urllib.error import HTTPError
from urllib.parse import urlsplit

from mlflow.tracking import MlflowClient

from thermal_search.errors import SearchError
from thermal_search.storage import Location

EXPERIMENT = "thermal-search"

SHORT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""MLflow's own retries. Those of `LogQueue` keep the order of the entries."""

log = logging.getLogger(__name__)


def store_of(output: Location) -> str:
    """The URI of the store: MLFLOW_TRACKING_URI, or a SQLite file in the output folder.

    Absolute, because Ray changes the working directory. SearchError for a folder in a bucket, which
    cannot hold a database.
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
    """Raises SearchError if the runs of a search cannot be stored."""
    store = store_of(output)
    if "MLFLOW_TRACKING_URI" not in os.environ:
        return
    if store.startswith(("http://", "https://")):
        _wait_for_server(store, timeout_s)
    with errors_as_sentences(store):
        client_of(store).get_experiment_by_name(EXPERIMENT)


def _wait_for_server(store: str, timeout_s: float) -> None:
    address, is_warned = without_password(store), False
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            # Needs no password, also on a server that has one.
            with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=10):
                return
        except (OSError, ValueError) as error:
            if isinstance(error, HTTPError) and error.code < 500:
                return  # the server answers; MLflow decides what to do about it
            if time.monotonic() > deadline:
                raise SearchError(
                    f"No tracking server answers at {address} ({error}): start it, or fix "
                    "MLFLOW_TRACKING_URI."
                ) from None
            if not is_warned:
                log.warning("No tracking server answers at %s yet; waiting.", address)
                is_warned = True
            time.sleep(1)


@contextlib.contextmanager
def errors_as_sentences(store: str) -> Generator[None]:
    """Turns any error of a store into a SearchError; each kind of store has errors of its own."""
    try:
        yield
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
        if password := urlsplit(store).password:
            reason = reason.replace(password, "***")
        raise SearchError(
            f"MLflow cannot keep runs at {without_password(store)} ({reason[:300]}): fix "
            "MLFLOW_TRACKING_URI, or unset it."
        ) from None


def client_of(store: str) -> MlflowClient:
    # No messages about the database's upgrade steps.
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.store.db_migrations"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for name, value in SHORT_TIMEOUTS.items():
        os.environ.setdefault(name, value)
    return MlflowClient(store)


def without_password(text: str) -> str:
    """An address, or text that contains some, without the users and passwords in it."""
    return re.sub(r"//[^/\s]*@", "//", text)
