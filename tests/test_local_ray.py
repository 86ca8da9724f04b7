"""Ray on this machine, in unusual surroundings and with a token of its own."""

import contextlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time

import pytest
import ray

from thermal_search import local_ray
from thermal_search.cli import main
from thermal_search.errors import SearchError
from thermal_search.socket_folder import MAX_SOCKET_PATH, short_folder_for, temporary_folder_for
from thermal_search.tuning import nodes

# As its raylet words it.
WARNING = (
    "WARNING: 8 PYTHON worker processes have been started on node: abc with address: 127.0.0.1, "
    "which is 4x the maximum expected startup concurrency (2)."
)
FILTER = f"""
from thermal_search import local_ray
local_ray.hide_warnings()
from ray._private.worker import print_to_stdstream
for line in [{WARNING!r}, "something else"]:
    print_to_stdstream({{"lines": [line], "pid": "raylet", "is_err": False}}, False)
"""


def test_warning_about_processes_that_only_wait_is_not_shown():
    shown = subprocess.run(
        [sys.executable, "-c", FILTER], capture_output=True, text=True, check=True
    ).stdout

    assert "something else" in shown
    assert "worker processes" not in shown


@pytest.mark.parametrize("length", [20, 43, 44, 120])
def test_sockets_are_where_their_paths_are_short_enough(monkeypatch, tmp_path, length):
    long = "/" + "x" * (length - 1)
    monkeypatch.setattr(tempfile, "tempdir", long)
    fits = len(f"{long}/{local_ray.SESSION_SOCKET}") <= MAX_SOCKET_PATH
    folder = short_folder_for(local_ray.SESSION_SOCKET)

    assert folder == (None if fits else "/tmp")
    assert len(f"{folder or long}/{local_ray.SESSION_SOCKET}") <= MAX_SOCKET_PATH
    with temporary_folder_for(local_ray.SESSION_SOCKET):
        assert tempfile.gettempdir() == (folder or long)
    assert tempfile.gettempdir() == long


GREETING = b"\0\0\0\4\0\0\0\0\0"  # of HTTP/2: settings
ANSWERS = {
    "silent": b"",
    "HTTP/1.1": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2 without an answer": GREETING,
    "HTTP/2 with status 404": GREETING + b"\0\0\1\1\5\0\0\0\1\x8d",
}
GRPC = GREETING + b"\0\0\4\1\5\0\0\0\1\x3f\xe1\x1f\x88"


@contextlib.contextmanager
def listener(answer):
    """Accepts connections, and answers the first bytes of each with these; its HOST:PORT."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as connections:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    connections.enter_context(connection)
                    connection.recv(1000)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        with contextlib.suppress(OSError):  # it waits no longer
            server.shutdown(socket.SHUT_RDWR)


def assert_is_no_cluster(address, named=None):
    began = time.monotonic()
    with pytest.raises(SearchError, match=r"^No Ray cluster answers at ") as caught:
        nodes.join(address)
    assert time.monotonic() - began < 30
    assert f"{named or repr(address)}: pass the HOST:PORT" in str(caught.value)
    assert not ray.is_initialized()


@pytest.mark.parametrize("what", ANSWERS)
def test_what_is_not_ray_at_an_address_is_one_sentence_soon(what):
    with listener(ANSWERS[what]) as address:
        assert_is_no_cluster(address)


@pytest.mark.parametrize("how", ["address", "auto"])
def test_nothing_at_an_address_is_one_sentence_soon(monkeypatch, how):
    with listener(b"") as address:
        pass
    if how == "auto":  # of a cluster that has ended
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert_is_no_cluster("auto" if how == "auto" else address, repr(address))


@pytest.mark.parametrize("address", ["", "head", "head:", ":6379", "127.0.0.1:70000", "a b:1"])
def test_address_that_is_none_is_one_sentence_soon(address):
    assert_is_no_cluster(address)


def test_grpc_server_answers_whatever_it_says():
    with listener(GRPC) as address:
        assert local_ray._answers(address)


def test_search_at_an_address_without_ray_is_one_sentence(dataset, tmp_path, capsys):
    flags = ["--data", dataset, "--output", tmp_path / "o", "--features", "efficientnet-lite0"]
    with listener(ANSWERS["HTTP/1.1"]) as address, pytest.raises(SystemExit) as exit:
        main(["search", *map(str, flags), "--address", address])

    assert str(exit.value.code).startswith("thermal-search: No Ray cluster answers at ")
    assert "\n" not in str(exit.value.code)
    assert not (tmp_path / "o").exists()


START = """
import os, sys
from thermal_search import local_ray
before = dict(os.environ)
local_ray.start(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
import ray
@ray.remote(num_cpus=0)
def answer():
    return 42
assert ray.get(answer.remote()) == 42
assert "RAY_AUTH_TOKEN" not in os.environ and os.environ.get("RAY_AUTH_MODE") is None
ray.shutdown()
"""


@pytest.mark.ray
@pytest.mark.parametrize("has_home", [True, False])
def test_ray_starts_with_a_long_temporary_folder_and_writes_no_token(tmp_path, has_home):
    home, temporary = tmp_path / "home", tmp_path / ("x" * 120)
    home.mkdir()
    temporary.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"HOME": str(home) if has_home else os.devnull, "TMPDIR": str(temporary)}
    subprocess.run([sys.executable, "-c", START], env=environment, check=True, timeout=240)

    for file in home.rglob("*"):
        assert file.name != "auth_token" or stat.S_IMODE(file.stat().st_mode) == 0o600


REFUSED = """
import os, subprocess, sys
import ray
from ray._private.ray_constants import ENABLE_RAY_CLUSTERS_ENV_VAR as SWITCH  # 0: loopback
from thermal_search import local_ray
local_ray.start(include_dashboard=False, num_cpus=1, log_to_driver=False, logging_level="warning")
address = ray.get_runtime_context().gcs_address
stranger = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, SWITCH: "0"}
code = f"import ray; ray.init(address={address!r}, logging_level='fatal'); print('joined')"
done = subprocess.run(
    [sys.executable, "-c", code], env=stranger, capture_output=True, text=True, timeout=120
)
print("joined" in done.stdout, "Authentication" in done.stderr)
"""


@pytest.mark.ray
def test_process_with_another_token_does_not_join(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    environment["HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip

    assert done.stdout.split() == ["False", "True"], done.stdout + done.stderr
    assert "token" not in done.stderr.lower()
