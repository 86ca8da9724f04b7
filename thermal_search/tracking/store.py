"""Where the MLflow runs of a search are stored, and whether that store can be reached."""

import contextlib
import logging
import os
import re
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from mlflow.tracking import MlflowClient

from thermal_search.errors import SearchError
from thermal_search.storage import Location

EXPERIMENT = "thermal-search"

ADDRESSES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that hold addresses of files."""

SHORT_TIMEOUTS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""MLflow's own retries. Those of `LogQueue` keep the order of the entries."""

log = logging.getLogger(__name__)


def tracking_server() -> str | None:
    """The store that the environment names, usually a server; None if there is none."""
    return os.environ.get("MLFLOW_TRACKING_URI", "").strip() or None


def store_of(output: Location) -> str:
    """The URI of the store: MLFLOW_TRACKING_URI, or a SQLite file in the output folder.

    Absolute, because Ray changes the working directory. SearchError for a folder in a bucket, which
    cannot hold a database.
    """
    if server := tracking_server():
        return server
    if output.local is None:
        raise SearchError(
            f"{output} is in a bucket, where MLflow cannot keep its runs: set MLFLOW_TRACKING_URI "
            "to a tracking server (docs/tracking-server.md)."
        )
    path = str(_database(output))
    if "?" in path:
        raise SearchError(
            f"{path} must not hold a question mark, because MLflow could not open it: choose "
            "another folder, or set MLFLOW_TRACKING_URI."
        )
    return f"sqlite:///{path}"


def artifacts_of(output: Location) -> str:
    """The address of the images of a search that has a SQLite file for its runs."""
    return (output / "mlflow-artifacts").uri


def prepare_database(output: Location, warn: Callable[[str], None]) -> None:
    """Makes a search's own SQLite file usable where it is now: after the search was moved or
    copied, the images are found in the new place. A damaged file is set aside, because the record
    of the search holds all that is logged. Nothing to do if the runs are on a server.

    Raises SearchError if the file cannot be used for now: locked, read-only, or on a disk that
    refuses.
    """
    database = None if tracking_server() or output.local is None else _database(output)
    if database is None or not database.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            _check(connection)
            _follow_move(connection, artifacts_of(output))
    except sqlite3.DatabaseError as error:
        if not _is_damage(error):
            raise SearchError(
                f"{database} cannot be used ({error}): end the program that holds it, or fix its "
                "disk or permissions, and try again."
            ) from None
        aside = database.with_name(f"{database.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        database.rename(aside)
        warn(f"{database} is damaged ({error}): it is now {aside.name}, and a new one is written.")


def _check(connection: sqlite3.Connection) -> None:
    (answer,) = connection.execute("pragma quick_check(1)").fetchone()
    if answer != "ok":
        raise sqlite3.DatabaseError(answer)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether the file itself is at fault. A lock and a disk that refuses are errors as well."""
    # Without a code: of the check above, or of Python, for text that is none.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _follow_move(connection: sqlite3.Connection, artifacts: str) -> None:
    tables = {name for (name,) in connection.execute("select name from sqlite_master")}
    if not {"experiments", "runs"} <= tables:
        return  # the file of a search that was killed before MLflow had written it
    known = connection.execute(
        "select experiment_id, artifact_location from experiments where name = ?", (EXPERIMENT,)
    ).fetchone()
    if not known or known[1] == artifacts:
        return
    id, before = known
    connection.execute(
        "update experiments set artifact_location = ? where experiment_id = ?", (artifacts, id)
    )
    for table, column in ADDRESSES:
        if table in tables:
            connection.execute(
                f"update {table} set {column} = ? || substr({column}, ?) "
                f"where substr({column}, 1, ?) = ?",
                (artifacts, len(before) + 1, len(before) + 1, f"{before}/"),
            )


def _database(output: Location) -> Path:
    assert output.local
    return output.local.absolute() / "mlflow.db"


def require_store(output: Location, timeout_s: float = 60.0) -> None:
    """Raises SearchError if the runs of a search cannot be stored."""
    store = store_of(output)
    if not tracking_server():
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
