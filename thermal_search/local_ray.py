"""Ray on this machine only, which no other machine can reach, or on an existing cluster."""

import contextlib
import os
import secrets
import socket
import tempfile
from collections.abc import Generator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from thermal_search.errors import SearchError
from thermal_search.socket_folder import short_folder_for

SESSION_SOCKET = "ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""The longest path of a socket of Ray's, in its temporary folder."""

SLOTS_START_PROCESSES = "worker processes have been started on node"
"""From a warning of Ray's that many actors run at once: those of the slots, which only wait."""

ANSWER_TIMEOUT_S = 10.0
MODE = "RAY_AUTH_MODE"
EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"
"""A frame of HTTP/2: no content, type SETTINGS."""


def hide_warnings() -> None:
    """Keeps off the terminal what Ray warns of that is as it should be. Ray reads it when it is
    imported."""
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", SLOTS_START_PROCESSES)


def start(**settings: Any) -> None:
    """Calls `ray.init` so that Ray listens on the loopback interface only.

    On macOS and Windows Ray does so by default. On Linux it listens on all interfaces, unless a
    switch is set that Ray reads when it is imported; its public interface has no other one.
    """
    import ray
    from ray._private import ray_constants

    switch = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    if "RAY_TMPDIR" not in os.environ and (folder := short_folder_for(SESSION_SOCKET)):
        settings = {"_temp_dir": tempfile.mkdtemp(prefix="ray-", dir=folder)} | settings
    try:
        mode = {MODE: os.environ.get(MODE, "token")}
        with _environment({switch: "0", **mode, **_token()}):
            # By itself Ray would require a token too, and warn of it each time.
            _read_environment_again()
            ray.init(address="local", **settings)
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _read_environment_again() -> None:
    """Lets Ray read whether it requires a token, and which one. It does so when it is imported, and
    would keep what an earlier Ray of this process required."""
    from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore - compiled

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@cache
def _token() -> Mapping[str, str]:
    """The token that Ray's processes show each other, as a variable of the environment.

    Empty if the user has one. Otherwise Ray would make one and write it to a file that all users of
    the machine can read. The same one each time: this process remembers the first.
    """
    has_own = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    with contextlib.suppress(OSError, RuntimeError):  # no home folder
        has_own = has_own or (Path.home() / ".ray" / "auth_token").exists()
    return {} if has_own else {"RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Generator[None]:
    """A context in which the environment has these variables too."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def connect(address: str, **settings: Any) -> None:
    """Calls `ray.init` for the cluster at `address`.

    Raises SearchError if no cluster answers, or if it refuses this machine's token.
    """
    if address != "auto" and not _answers(address):
        raise SearchError(_no_cluster(address))
    import ray
    from ray.exceptions import AuthenticationError

    _read_environment_again()
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
