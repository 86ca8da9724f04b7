"""Ray on this machine, in unusual surroundings and with a token of its own."""

import os
import stat
import subprocess
import sys
import tempfile

import pytest

from thermal_search import local_ray
from thermal_search.socket_folder import MAX_SOCKET_PATH, short_folder_for, temporary_folder_for

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
