"""NVIDIA MPS on a machine: when it is started, for whom, and that it always ends."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_mps import FakeMps

from thermal_search.tuning.slots import mps
from thermal_search.tuning.slots.mps import PIPES, MpsDaemon


@pytest.fixture
def fake(tmp_path, monkeypatch):
    programs = FakeMps(tmp_path / "nvidia")
    monkeypatch.setenv("PATH", programs.path)
    monkeypatch.delenv(PIPES, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return programs


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_daemon_has_private_folders_and_ends_with_the_search(fake, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    daemon = MpsDaemon()
    pipes = Path(daemon.state.environment[PIPES])

    assert not daemon.state.note
    assert fake.told[-1] == f"start {pipes} all"
    assert stat.S_IMODE(pipes.stat().st_mode) == 0o700
    assert stat.S_IMODE(pipes.parent.stat().st_mode) == 0o700
    daemon.stop()
    assert fake.told[-1] == f"quit -t 5 {pipes}"
    assert not pipes.parent.exists()


STARTS_ONE = """
import time
from thermal_search.tuning.slots.mps import MpsDaemon
daemon = MpsDaemon()
print(daemon.state.environment["CUDA_MPS_PIPE_DIRECTORY"], flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_daemon_ends_when_its_process_is_killed(fake, number, tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", STARTS_ONE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        pipes = Path(process.stdout.readline().strip())
        assert (pipes / "up").exists()
        assert not any(line.startswith("quit") for line in fake.told)
        process.send_signal(number)
    wait_for(lambda: not pipes.parent.exists())
    assert fake.told[-1] == f"quit -t 5 {pipes}"


def test_a_daemon_of_someone_else_is_used_and_left_alone(fake):
    (fake.system / "up").touch()
    daemon = MpsDaemon()

    assert (daemon.state.note, daemon.state.environment) == ("", {})
    daemon.stop()
    assert fake.told == ["get_server_list "]


@pytest.mark.parametrize(
    ("modes", "note"),
    [
        ("[N/A], Default\nEnabled, Default\n", "the GPUs are divided by MIG"),
        ("Disabled, Exclusive_Process\n", "a GPU is Exclusive_Process, not Default"),
    ],
)
def test_a_mode_of_the_gpu_that_forbids_it_is_named(fake, modes, note):
    fake.modes.write_text(modes)

    assert note in MpsDaemon().state.note
    assert fake.told == ["get_server_list "]


def test_without_the_driver_s_programs_gpus_are_shared_in_turns(tmp_path, monkeypatch, fake):
    (fake.programs / "nvidia-smi").unlink()
    assert "nvidia-smi does not say" in MpsDaemon().state.note
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert "nvidia-cuda-mps-control is not installed" in MpsDaemon().state.note


def test_a_daemon_that_does_not_start_leaves_nothing(fake, tmp_path):
    fake.fails.touch()
    state = MpsDaemon().state

    assert state.note == "nvidia-cuda-mps-control does not start (no permission)"
    assert state.environment == {}
    assert not list(tmp_path.glob("thermal-search-mps-*"))


def test_a_daemon_through_which_cuda_fails_is_ended(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(mps, "PROBE", "import sys; sys.exit('CUDA error 805')")
    state = MpsDaemon().state

    assert state.note.startswith("CUDA cannot be used through it (CUDA error 805)")
    assert fake.told[-1].startswith("quit -t 5 ")
    assert not list(tmp_path.glob("thermal-search-mps-*"))
