"""The hosts of the cluster tests: they are isolated, and nothing of them is left behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import hosts_in_namespaces
import pytest
from hosts_in_namespaces import Hosts

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing := hosts_in_namespaces.missing()), reason=str(missing)),
]
OWNER = """
import signal, sys, time
from pathlib import Path
from hosts_in_namespaces import Hosts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background process ignores it
with Hosts(Path(sys.argv[1]), ["one", "two"], hidden=[], seeing=[]) as hosts:
    hosts["two"].start("sleep 500", Path(sys.argv[1], "log"))
    print("on", flush=True)
    time.sleep(500)
"""


def processes_of(folder: Path) -> list[str]:
    commands = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if str(folder) in command:
                commands.append(command)
    return commands


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_hosts_end_with_their_owner(tmp_path, end):
    folder = tmp_path / "hosts"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parent,
    )
    assert owner.stdout
    assert owner.stdout.readline() == b"on\n"
    assert processes_of(folder)
    owner.send_signal(end)
    owner.wait(20)
    owner.stdout.close()
    deadline = time.monotonic() + 10
    while left := processes_of(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert str(folder) not in Path("/proc/mounts").read_text()


def test_home_survives_power_off_and_hidden_folders_are_invisible(tmp_path):
    listing = f"hostname; ls -A /root /tmp; ls {tmp_path}/secret"
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "secret-file").touch()
    hidden = [tmp_path / "secret"]
    with Hosts(tmp_path / "m", ["one", "two"], hidden=hidden, seeing=["two"]) as hosts:
        one, two = hosts["one"], hosts["two"]
        one.run("touch ~/saved /tmp/lost")
        one.power_off()
        one.power_on()

        output = one.run(listing).stdout
        assert output.startswith("one\n")
        assert "saved" in output
        assert "lost" not in output
        assert "secret-file" not in output
        assert "secret-file" in two.run(listing).stdout
        reach = f"timeout 2 bash -c '</dev/tcp/{one.address}/22'"
        assert two.run(reach).returncode == 0
        one.disconnect()
        assert two.run(reach).returncode != 0
        one.reconnect()
        assert two.run(reach).returncode == 0
