"""The machines that tests of a cluster run on: they are apart, and nothing of them is left."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import hosts_in_namespaces
import pytest
from hosts_in_namespaces import Machines

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(missing := hosts_in_namespaces.missing()), reason=str(missing)),
]
OWNER = """
import signal, sys, time
from pathlib import Path
from hosts_in_namespaces import Machines
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs aside is deaf to it
with Machines(Path(sys.argv[1]), ["one", "two"], hidden=[], seeing=[]) as machines:
    machines["two"].start("sleep 500", Path(sys.argv[1], "log"))
    print("on", flush=True)
    time.sleep(500)
"""


def processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().decode()
            except OSError:
                continue
            if str(folder) in command:
                found.append(command)
    return found


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_however_its_owner_ends(tmp_path, end):
    folder = tmp_path / "machines"
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


def test_a_machine_keeps_its_home_and_loses_the_rest(tmp_path):
    shown = f"hostname; ls -A /root /tmp; ls {tmp_path}/secret"
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "diary").touch()
    hidden = [tmp_path / "secret"]
    with Machines(tmp_path / "m", ["one", "two"], hidden=hidden, seeing=["two"]) as machines:
        one, two = machines["one"], machines["two"]
        one.run("touch ~/kept /tmp/lost")
        one.power_off()
        one.power_on()

        told = one.run(shown).stdout
        assert told.startswith("one\n")
        assert "kept" in told
        assert "lost" not in told
        assert "diary" not in told
        assert "diary" in two.run(shown).stdout
        reach = f"timeout 2 bash -c '</dev/tcp/{one.address}/22'"
        assert two.run(reach).returncode == 0
        one.cut()
        assert two.run(reach).returncode != 0
        one.mend()
        assert two.run(reach).returncode == 0
