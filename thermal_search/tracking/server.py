"""The MLflow UI of a search."""

import os
import socket
import sys

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.store import (
    prepare_database,
    store_of,
    tracking_server,
    without_password,
)


def serve_ui(output: Location, *, host: str, port: int) -> None:
    """Serves the MLflow UI of the search in `output` until it is interrupted."""
    if server := tracking_server():
        raise SearchError(
            f"The runs are on the server {without_password(server)}: open it in a browser."
        )
    _require_free_port(host, port)
    prepare_database(output, print)
    print(f"http://{host}:{port} shows the search in {output}; Ctrl-C ends it.", flush=True)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--backend-store-uri", store_of(output), "--host", host, "--port", str(port)]
    # No background jobs: they are ten processes that a local UI does not need.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Replaces this process, so that ending it ends the server.
    os.execv(sys.executable, command)


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
