"""NVIDIA MPS on this machine, through which processes that share a GPU compute at the same time.

Without it the driver gives them the GPU in turns, however little of it each one uses. Facts from
NVIDIA's documentation of the Multi-Process Service. No torch, no Ray.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from thermal_search.socket_folder import short_folder_for

CONTROL, QUERY = "nvidia-cuda-mps-control", "nvidia-smi"
PIPES, LOGS = "CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"

LONGEST_SOCKET = "thermal-search-mps-xxxxxxxx/pipes/control_privileged"
"""The longest path of a socket of the daemon's, in the folder for temporary files."""

ANSWER_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 30.0

QUIT = "quit -t 5"
"""Told to the daemon at the end: its servers have five seconds to lose their last processes."""

END_WITH_US = """
exec 3<&0
( cat; echo "$1" | "$2"; rm -rf "$3" ) <&3 >/dev/null 2>&1 &
"""
"""Ends the daemon when this process has ended, by whatever signal: `cat` returns when the last
holder of its pipe is gone. In the background, because Ray ends the children of its processes; there
a shell would read nothing from descriptor 0."""

PROBE = """
import ctypes, sys
try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit()
device, context = ctypes.c_int(), ctypes.c_void_p()
code = cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0)
code = code or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)
sys.exit(f"CUDA error {code}" if code else None)
"""
"""Uses CUDA as a worker would: a daemon may answer and still serve no process, as in a container
that keeps its server from the GPU."""


@dataclass(frozen=True)
class MpsState:
    """How processes of this machine share a GPU."""

    note: str = ""
    """Why in turns; empty if at the same time, through MPS."""

    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables that a process needs before it uses CUDA, in order to go through MPS."""


class MpsDaemon:
    """The control daemon of MPS for the processes of one search on this machine.

    It has folders of its own and serves no one else. It ends with `stop`, and at the latest with
    the process that started it. A daemon that is here already is used and never ended.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.ends_when_closed: int | None = None
        """Our end of the pipe that END_WITH_US waits for."""

        self.state = self._start()

    def stop(self) -> None:
        """Ends the daemon, if it is ours, and removes its folders."""
        if self.ends_when_closed is None or self.folder is None:
            return
        os.close(self.ends_when_closed)
        self.ends_when_closed = None
        ends = time.monotonic() + STOP_TIMEOUT_S
        while self.folder.exists() and time.monotonic() < ends:
            time.sleep(0.05)

    def _start(self) -> MpsState:
        control = shutil.which(CONTROL)
        if not control:
            return MpsState(f"{CONTROL} is not installed")
        if _answers(control):
            return MpsState()  # whose processes find it as this one does
        if obstacle := _obstacle():
            return MpsState(obstacle)
        self.folder = Path(
            # Of mode 0700.
            tempfile.mkdtemp(prefix="thermal-search-mps-", dir=short_folder_for(LONGEST_SOCKET))
        )
        environment = {PIPES: str(self.folder / "pipes"), LOGS: str(self.folder / "logs")}
        for folder in environment.values():
            Path(folder).mkdir(mode=0o700)
        # Ray numbers GPUs as a process without this variable sees them.
        variables = {n: v for n, v in os.environ.items() if n != "CUDA_VISIBLE_DEVICES"}
        variables |= environment
        self._end_with_this_process(control, variables)
        for command, failure in (
            ([control, "-d"], f"{CONTROL} does not start"),
            ([sys.executable, "-c", PROBE], "CUDA cannot be used through it"),
        ):
            if error := _failure(command, variables, self.folder / "output"):
                self.stop()
                return MpsState(f"{failure} ({error})")
        return MpsState(environment={PIPES: environment[PIPES]})

    def _end_with_this_process(self, control: str, variables: Mapping[str, str]) -> None:
        waits, self.ends_when_closed = os.pipe()
        # The shell ends at once; what it started in the background has the pipe.
        subprocess.run(
            ["/bin/sh", "-c", END_WITH_US, "sh", QUIT, control, str(self.folder)],
            stdin=waits,
            env=dict(variables),
            start_new_session=True,
            check=True,
        )
        os.close(waits)


def _answers(control: str) -> bool:
    """Whether a daemon serves this process's environment already: the system's, or that of whoever
    started the machine's Ray."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        asked = subprocess.run(
            [control],
            input=b"get_server_list\n",
            capture_output=True,
            timeout=ANSWER_TIMEOUT_S,
        )
        return asked.returncode == 0 and b"cannot find" not in (asked.stdout + asked.stderr).lower()
    return False


def _obstacle() -> str:
    """Why MPS must not be started on this machine; empty if nothing is against it."""
    query = [QUERY, "--query-gpu=mig.mode.current,compute_mode", "--format=csv,noheader"]
    try:
        answer = subprocess.run(
            query, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return f"{QUERY} does not say in which mode the GPUs are"
    for line in answer.stdout.splitlines():
        mig, _, mode = (part.strip() for part in line.partition(","))
        if mig.lower() == "enabled":
            return "the GPUs are divided by MIG"
        if mode.lower() != "default":
            return f"the compute mode of a GPU is {mode}, not Default"
    return ""


def _failure(command: list[str], variables: Mapping[str, str], log: Path) -> str:
    """Why a command failed, in a few words; empty if it did not.

    Its output goes to a file: a daemon keeps it open, and a pipe would never end.
    """
    with log.open("wb") as output:
        try:
            result = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(variables),
                timeout=ANSWER_TIMEOUT_S,
                start_new_session=True,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return type(error).__name__
    if not result.returncode:
        return ""
    words = " ".join(log.read_text(errors="replace").split())[:200]
    return words or f"exit code {result.returncode}"
