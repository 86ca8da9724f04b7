"""Ray on this machine only, which no other machine can reach, or on an existing cluster."""

import contextlib
import os
import secrets
import socket
import tempfile
import time
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

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4
"""Types of frames of HTTP/2 (RFC 9113, 6), and their flags."""


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
    if address == "auto":
        address = _local_cluster()
    if not _answers(address):
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


def _local_cluster() -> str:
    """The address that Ray finds for "auto": of a cluster that this machine belongs to, or did."""
    from ray._private.services import get_ray_address_from_environment

    try:
        return get_ray_address_from_environment("auto", None)
    except ConnectionError:
        raise SearchError(_no_cluster("auto")) from None


def _answers(address: str) -> bool:
    """Whether a gRPC server answers at HOST:PORT within ANSWER_TIMEOUT_S. Ray itself tries for many
    minutes.

    A gRPC server answers every request with HTTP status 200, also one of a method that it does not
    have or may not run; a web server answers a POST to an unknown path with another one.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_TIMEOUT_S) as server:
            if os.environ.get("RAY_USE_TLS", "0") != "0":
                return True  # it would answer after a handshake
            server.sendall(_request(address))
            with server.makefile("rb") as answer:
                while header := answer.read(9):
                    content = answer.read(int.from_bytes(header[:3], "big"))
                    if header[3] == HEADERS:
                        return _is_status_200(content)
                    server.settimeout(deadline - time.monotonic())
    except (OSError, ValueError, IndexError, OverflowError, UnicodeError):
        pass
    return False


def _request(address: str) -> bytes:
    """A call of a method of Ray's, without arguments, as gRPC sends it over a new connection."""

    def frame(type: int, flags: int, stream: int, content: bytes) -> bytes:
        length, rest = len(content).to_bytes(3, "big"), stream.to_bytes(4, "big")
        return length + bytes([type, flags]) + rest + content

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    # HPACK (RFC 7541): names and values by their number in its table, or as they are.
    headers = b"\x83\x86"  # :method POST, :scheme http
    headers += b"\x04" + text("/ray.rpc.NodeInfoGcsService/GetClusterId")  # :path
    headers += b"\x01" + text(address[-100:])  # :authority
    headers += b"\x0f\x10" + text("application/grpc")  # content-type
    headers += b"\x00" + text("te") + text("trailers")
    return (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, headers)
        + frame(DATA, END_STREAM, 1, bytes(5))  # an empty message: not compressed, of length 0
    )


def _is_status_200(headers: bytes) -> bool:
    """Whether the headers of an answer begin with :status 200, as number 8 of HPACK's table."""
    at = 0
    while headers[at] & 0xE0 == 0x20:  # a new size of the table, a number of one or more bytes
        is_long = headers[at] & 0x1F == 0x1F
        at += 1
        while is_long:
            is_long = headers[at] & 0x80 != 0
            at += 1
    return headers[at] == 0x88


def _no_cluster(address: str) -> str:
    return (
        f"No Ray cluster answers at {address!r}: pass the HOST:PORT of one (ray start --head "
        "prints it), or --address local to use this machine alone."
    )
