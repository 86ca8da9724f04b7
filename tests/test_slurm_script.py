"""The shell logic of cluster/slurm.sh, with stand-ins for Slurm, Ray and the search.

test_slurm.py runs the script on a real Slurm.
"""

import os
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "cluster" / "slurm.sh"

STAND_INS = {
    "python": "echo 10.0.0.1",
    # Every node at once; the highest exit code.
    "srun": """
while [[ $1 == --* ]]; do shift; done
for id in $(seq 0 $((SLURM_JOB_NUM_NODES - 1))); do SLURM_NODEID=$id "$@" & ids+=($!); done
code=0; for id in "${ids[@]}"; do wait "$id" || code=$?; done; exit $code""",
    # Like Ray's launcher, it says nothing by its exit code.
    "ray": """
if [ $SLURM_NODEID = 0 ]; then
    [ -z "$HEAD_FAILS" ] || { echo "Failed to start Ray"; exit 0; }
    while [ "$1" != -- ]; do shift; done; shift; "$@"; exit 1
fi
echo try >>tries; [ $(wc -l <tries) -le $FAILURES ] || echo "Ray runtime started."
exit 0""",
    "thermal-search": """
printf '<%s>' "$@" >arguments
[ -z "$WAITS" ] || { trap 'kill $!; echo stopped; exit 143' TERM; sleep 60 & touch waiting; wait; }
exit $SEARCH_EXITS""",
}


@pytest.fixture
def job(tmp_path):
    """Starts the script as a job in an empty folder; returns its process."""
    for name, body in STAND_INS.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/bash\n{body}\n")
        file.chmod(0o755)
    (tmp_path / "work").mkdir()

    def start(*flags: str, **variables: str) -> "subprocess.Popen[str]":
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": uuid.uuid4().hex, "SLURM_JOB_NUM_NODES": "1",
            "HEAD_FAILS": "", "FAILURES": "0", "WAITS": "", "SEARCH_EXITS": "0",
        }  # fmt: skip
        return subprocess.Popen(
            ["bash", SCRIPT, *flags],
            cwd=tmp_path / "work",
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.mark.parametrize("code", ["0", "2"])
def test_job_ends_with_the_exit_code_of_the_search(job, tmp_path, code):
    running = job("--data", "a b", "--output", "o", SEARCH_EXITS=code, SLURM_JOB_ID=f"test-{code}")
    printed, _ = running.communicate(timeout=30)

    assert running.returncode == int(code), printed
    arguments = (tmp_path / "work" / "arguments").read_text()
    assert arguments == "<search><--address><10.0.0.1:6379><--data><a b><--output><o>"
    assert not Path(f"/tmp/ray-test-{code}").exists()


def test_job_that_was_queued_again_resumes(job, tmp_path):
    assert job("--output", "o", SLURM_RESTART_COUNT="1").wait(30) == 0
    assert (tmp_path / "work" / "arguments").read_text().endswith("<--output><o><--resume>")


def test_ray_that_does_not_start_on_the_head_fails_the_job(job):
    running = job("--output", "o", HEAD_FAILS="yes")
    printed, _ = running.communicate(timeout=30)

    assert running.returncode == 1
    assert "Ray did not start, or ended before the search: the reason is above." in printed


@pytest.mark.parametrize(("failures", "tries"), [("0", 1), ("2", 3), ("9", 3)])
def test_another_node_tries_three_times(job, tmp_path, failures, tries):
    job("--output", "o", SLURM_JOB_NUM_NODES="2", FAILURES=failures).communicate(timeout=30)

    assert (tmp_path / "work" / "tries").read_text().count("try") == tries


def test_signal_of_slurm_stops_the_search_and_the_job_waits_for_it(job, tmp_path):
    running = job("--output", "o", WAITS="yes")
    deadline = time.monotonic() + 30
    while not (tmp_path / "work" / "waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    # Its own process only, as Slurm does with --signal=B:TERM.
    running.send_signal(signal.SIGTERM)
    printed, _ = running.communicate(timeout=30)

    assert running.returncode == 143
    assert "stopped" in printed
