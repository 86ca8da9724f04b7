"""Ray on this machine only, which no other machine can reach, or on an existing cluster."""

import os
import socket
from typing import Any

from thermal_search.errors import SearchError

ANSWER_TIMEOUT_S = 10.0
MODE = "RAY_AUTH_MODE"
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""A frame of HTTP/2: no content, type SETTINGS."""


def start(**settings: Any) -> None:
    """Calls `ray.init` so that Ray listens on the loopback interface only.

    On macOS and Windows Ray does so by default. On Linux it listens on all interfaces, unless a
    switch is set that Ray reads when it is imported; its public interface has no other one.
    """
    import ray
    from ray._private import ray_constants

    _require_token()
    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER, os.environ.get(switch)
    ray_constants.ENABLE_RAY_CLUSTER, os.environ[switch] = False, "0"
    try:
        ray.init(address="local", **settings)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before[0]
        if before[1] is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before[1]


def _require_token() -> None:
    """Lets only processes with this user's token use the cluster, unless RAY_AUTH_MODE decides.

    Ray would do the same by itself, and warn of it each time. It writes the token to
    ~/.ray/auth_token if there is none.
    """
    if MODE in os.environ:
        return
    from ray._raylet import Config  # pyright: ignore[reportMissingModuleSource] - compiled

    os.environ[MODE] = "token"
    # Ray has read its environment when it was imported.
    Config.initialize("")


def connect(address: str, **settings: Any) -> None:
    """Calls `ray.init` for the cluster at `address`.

    Raises SearchError if no cluster answers, or if it refuses this machine's token.
    """
    if address != "auto" and not _answers(address):
        raise SearchError(_no_cluster(address))
    import ray
    from ray.exceptions import AuthenticationError

    try:
        ray.init(address=address, **settings)
    except ConnectionError:
        raise SearchError(_no_cluster(address)) from None
    except AuthenticationError:
        raise SearchError(
            f"The Ray cluster at {address!r} requires another token than this machine's: copy "
            "~/.ray/auth_token from the head of the cluster and set RAY_AUTH_MODE=token."
        ) from None


def _answers(address: str) -> bool:
    """Whether a gRPC server answers at HOST:PORT. Ray itself tries for many minutes.

    A server of HTTP/2, which gRPC uses, greets with a SETTINGS frame (RFC 9113, 3.4).
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIMEOUT_S) as server:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return True  # it would greet after a handshake
            server.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + EMPTY_SETTINGS)
            return server.recv(9)[3:4] == EMPTY_SETTINGS[3:4]
    except (OSError, ValueError, OverflowError, UnicodeError):
        return False


def _no_cluster(address: str) -> str:
    return (
        f"No Ray cluster answers at {address!r}: pass the HOST:PORT of one (ray start --head "
        "prints it), or --address local to use this machine alone."
    )
