"""cluster/slurm.sh on a Slurm of two nodes, which are hosts in namespaces.

`pytest -m faults -n 0 tests/test_slurm.py`, as root, takes some minutes.
"""

import json
import shutil
import time

import hosts_in_namespaces
import pytest
import slurm_cluster
from hosts_in_namespaces import Hosts
from slurm_cluster import SlurmCluster
from summaries import assert_is_complete, small
from wheels import ROOT

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        bool(missing := slurm_cluster.missing() or hosts_in_namespaces.missing()),
        reason=str(missing),
    ),
]
NODES = ["node-1", "node-2"]
SCRIPT = ROOT / "cluster" / "slurm.sh"
IMAGES = 64
FLAGS = f"--data data --images {IMAGES} --evaluate-every 32 --features efficientnet-lite0"


@pytest.fixture(scope="module")
def slurm(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    shutil.copytree(dataset, folder / "data")
    with Hosts(folder, NODES, hidden=[ROOT], seeing=NODES) as hosts:
        yield SlurmCluster(hosts, NODES, cpus=2)


def submit(slurm: SlurmCluster, options: str, flags: str) -> str:
    """The number of a job, submitted in the shared folder as a user does."""
    return slurm.run(
        f"cd {slurm.hosts.folder} && sbatch --parsable {options} {SCRIPT} {flags}",
        PYTHONPATH=str(ROOT),
        # Both nodes share one machine: its other load must neither delay Ray's workers nor get
        # them killed for lack of memory.
        RAY_worker_niceness="0",
        RAY_memory_monitor_refresh_ms="0",
        # How soon Ray on the second node ends after the head's; a minute by default.
        RAY_gcs_rpc_server_reconnect_timeout_s="20",
    ).strip()


def output_of(slurm: SlurmCluster, job: str) -> str:
    file = slurm.hosts.folder / f"slurm-{job}.out"
    return file.read_text() if file.exists() else ""


def test_search_runs_on_all_nodes_of_a_job(slurm):
    search = f"--architectures dcgan,wgan --trials 2 --fix {','.join(small('dcgan', 'wgan'))}"
    two_nodes = "--slots 1 --workers 2 --placement spread --wait-for-nodes 2"
    job = submit(slurm, "--nodes=2", f"{FLAGS} {search} {two_nodes} --output first")
    workers = dict.fromkeys(NODES, 0)
    while slurm.state(job) in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"):
        time.sleep(1)
        for node in slurm.nodes:
            found = node.processes("ray::RayTrainWorker")
            workers[node.name] = max(workers[node.name], len(found))
    printed = output_of(slurm, job)

    assert slurm.state(job) == "COMPLETED", printed
    assert all(workers.values()), workers
    summary = json.loads((slurm.hosts.folder / "first" / "summary.json").read_text())
    assert_is_complete(summary, trials=2, images=IMAGES)
    for node in slurm.nodes:
        assert not node.processes("raylet"), "Ray ends with the job"
        assert node.run(f"ls /tmp/ray-{job}").returncode != 0


def test_search_that_fails_fails_the_job(slurm):
    job = submit(slurm, "--nodes=2", f"{FLAGS} --architectures dcgam --output second")

    assert slurm.wait(job, timeout_s=600) == "FAILED"
    assert "ExitCode=2:0" in slurm.run(f"scontrol show job {job}")
    assert "Unknown architecture 'dcgam'" in output_of(slurm, job)


def test_job_stops_tidily_before_its_time_ends_and_resumes_if_queued_again(slurm):
    search = f"--architectures dcgan --trials 2 --fix {','.join(small('dcgan'))} --slots 1"
    job = submit(slurm, "", f"{FLAGS} {search} --output third")
    while "00000 dcgan completed" not in output_of(slurm, job):
        assert slurm.state(job) in ("PENDING", "RUNNING"), output_of(slurm, job)
        time.sleep(0.5)
    # As Slurm does at the time of --signal.
    slurm.run(f"scancel --batch --signal=TERM {job}")

    assert slurm.wait(job, timeout_s=600) == "FAILED"
    assert "ExitCode=143:0" in slurm.run(f"scontrol show job {job}")
    assert "--resume" in output_of(slurm, job)
    slurm.run(f"scontrol requeue {job}")
    assert slurm.wait(job, timeout_s=900) == "COMPLETED", output_of(slurm, job)
    summary = json.loads((slurm.hosts.folder / "third" / "summary.json").read_text())
    assert_is_complete(summary, trials=2, images=IMAGES)


def test_ray_that_does_not_start_fails_the_job(slurm):
    """The port is taken: Ray's launcher then ends with exit code 0."""
    taken = slurm.controller.start(
        "python -c 'import socket, time; s = socket.create_server((\"\", 6379)); time.sleep(600)'",
        slurm.hosts.folder / "port.log",
    )
    job = submit(slurm, "", f"{FLAGS} --architectures dcgan --output fourth")
    try:
        assert slurm.wait(job, timeout_s=600) == "FAILED", output_of(slurm, job)
    finally:
        taken.kill()
        taken.wait()
    assert "Ray did not start, or ended before the search" in output_of(slurm, job)
