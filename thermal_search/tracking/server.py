"""The MLflow UI of a search."""

import os
import socket
import sys

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.store import (
    EXPERIMENT,
    client_of,
    errors_as_sentences,
    prepare_database,
    store_of,
    tracking_server,
    without_password,
)
from thermal_search.tracking.view import SearchView


def serve_ui(output: Location, view: SearchView, *, host: str, port: int) -> None:
    """Serves the MLflow UI of the search in `output` until it is interrupted. If the runs are on a
    server, it only prints the address of the search there."""
    if server := tracking_server():
        if not server.startswith(("http://", "https://")):
            raise SearchError(
                f"The runs are in {without_password(server)}: open it with mlflow ui "
                "--backend-store-uri, or set MLFLOW_TRACKING_URI to a server of it."
            )
        print(f"{_address(output, view, without_password(server))} shows the search in {output}.")
        return
    _require_free_port(host, port)
    prepare_database(output, print)
    shown = f"[{host}]" if ":" in host else host
    address = _address(output, view, f"http://{shown}:{port}")
    print(f"{address} shows the search in {output}; Ctrl-C ends it.", flush=True)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--backend-store-uri", store_of(output), "--host", host, "--port", str(port)]
    # No background jobs: they are ten processes that a local UI does not need.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Replaces this process, so that ending it ends the server.
    os.execv(sys.executable, command)


def _address(output: Location, view: SearchView, server: str) -> str:
    """Where a server shows the search, as soon as the search has logged anything."""
    store = store_of(output)
    with errors_as_sentences(store):
        client = client_of(store)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            return server
        # Again, for a search whose runs an earlier version of this package logged.
        view.save(client, experiment.experiment_id)
    return view.address(server, experiment.experiment_id)


def _require_free_port(host: str, port: int) -> None:
    """Raises SearchError if no server can listen there."""
    if not 1 <= port <= 65535:
        raise SearchError(f"--port must be from 1 to 65535, but is {port}.")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise SearchError(
            f"No server can listen on {host} port {port} ({reason}): pass another --port or --host."
        ) from None
