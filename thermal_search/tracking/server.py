"""The MLflow UI of a search."""

import os
import sys

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.store import store_of, without_password


def serve_ui(output: Location, *, host: str, port: int) -> None:
    """Serves the MLflow UI of the search in `output` until it is interrupted."""
    if "MLFLOW_TRACKING_URI" in os.environ:
        raise SearchError(
            f"The runs are on the server {without_password(os.environ['MLFLOW_TRACKING_URI'])}: "
            "open it in a browser."
        )
    print(f"http://{host}:{port} shows the search in {output}; Ctrl-C ends it.", flush=True)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--backend-store-uri", store_of(output), "--host", host, "--port", str(port)]
    # No background jobs: they are ten processes that a local UI does not need.
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    # Replaces this process, so that ending it ends the server.
    os.execv(sys.executable, command)
