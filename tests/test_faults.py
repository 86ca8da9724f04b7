"""Power and network failures of a cluster during a search; docs/faults.md has the printed figures.

Not part of the default run: `pytest -m faults -n 0 -s tests/test_faults.py`, as root, takes about
twenty minutes.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import hosts_in_namespaces
import pytest
from hosts_in_namespaces import Host, Hosts
from launched_cluster import (
    ROOT,
    LaunchedCluster,
    bucket_on,
    serve_bucket,
    serve_mlflow,
    wait_for_server,
)
from summaries import small

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing := hosts_in_namespaces.missing()), reason=str(missing)),
]
EVERY = 64
"""Images between two evaluations: a few seconds."""

TIMEOUT_S = 600


class RunningSearch:
    """A search by `ray submit`: two concurrent trials of one worker each, to a bucket."""

    def __init__(self, cluster: LaunchedCluster, name: str, *, evaluations: int = 6) -> None:
        self.cluster, folder = cluster, cluster.hosts.folder
        self.output = bucket_on(cluster.hosts["bucket"], name)
        self.log, self.mirror = folder / f"{name}.log", folder / f"{name}.json"
        self.evaluations, self.last_read = evaluations, dict[str, list[Any]]()
        flags = ["--data", bucket_on(cluster.hosts["bucket"], "data"), "--output", self.output]
        flags += ["--fix", ",".join(small("cgan", "wgan"))]
        flags += ["--architectures", "cgan,wgan", "--trials", 2, "--slots", 2, "--reduction", 100]
        flags += ["--images", EVERY * evaluations, "--evaluate-every", EVERY]
        flags += ["--features", "efficientnet-lite0"]
        self.submission = cluster.start_submit(*flags, log=self.log)
        cluster.start_python(MIRROR.format(address=self.output, copy=self.mirror), self.log)

    def resume(self, start: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        """Starts it again, until the claim of the process that is dead is over."""
        while True:
            before = len(self.log.read_text())
            self.submission = start()
            while "Searching on" not in (printed := self.log.read_text()[before:]):
                if self.submission.poll() is not None:
                    assert "is held by another search" in printed, printed[-4000:]
                    break
                time.sleep(0.5)
            else:
                return
            time.sleep(5)

    @property
    def histories(self) -> dict[str, list[Any]]:
        """The evaluations of each trial, by ID, from summary.json."""
        # After an interrupted upload, the test's S3 server has a truncated file, while a real one
        # keeps the previous file: then the last complete read counts.
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            trials = json.loads(self.mirror.read_text())["trials"]
            self.last_read = {trial["id"]: trial["history"] for trial in trials}
        return self.last_read

    def wait_for_all(self, count: int, *, more_than: dict[str, list[Any]] | None = None) -> float:
        """Waits until each trial has `count` (more) evaluations; returns the seconds."""
        before, began = more_than or {}, time.monotonic()
        while True:
            now = {id: len(history) for id, history in self.histories.items()}
            target = {id: min(len(before.get(id, [])) + count, self.evaluations) for id in now}
            if len(now) == 2 and all(now[id] >= target[id] for id in now):
                return time.monotonic() - began
            assert self.submission.poll() in (None, 0), self.log.read_text()[-4000:]
            assert time.monotonic() - began < TIMEOUT_S, (now, self.log.read_text()[-4000:])
            time.sleep(0.2)

    def training_host(self) -> Host:
        """A host that trains one of the trials."""
        return next(m for m in self.cluster.workers if m.processes("ray::RayTrainWorker"))

    def assert_completes(self, before: dict[str, list[Any]]) -> None:
        """Waits for the end: every trial has every evaluation once, and those from before the fault
        are neither lost nor trained again."""
        assert self.submission.wait(1200) == 0, self.log.read_text()[-4000:]
        trials = json.loads(self.cluster.read(self.output, "summary.json"))["trials"]
        self.mirror.with_suffix(".end").touch()
        assert [trial["status"] for trial in trials] == ["completed", "completed"]
        for trial in trials:
            images = [item["images"] for item in trial["history"]]
            assert [i // EVERY for i in images] == list(range(1, self.evaluations + 1))
            earlier = before[trial["id"]]
            assert trial["history"][: len(earlier)] == earlier


MIRROR = """
import pathlib, time
from thermal_search.storage import Location
copy = pathlib.Path("{copy}")
while not copy.with_suffix(".end").exists():
    try:
        content = (Location.of("{address}") / "summary.json").read_text()
    except FileNotFoundError:
        content = ""
    if content:
        copy.with_suffix(".new").write_text(content)
        copy.with_suffix(".new").replace(copy)
    time.sleep(0.5)
"""
"""Runs at the desk, as only hosts of the network reach the bucket."""


def report(fault: str, **seconds: float) -> None:
    print(f"\n{fault}: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))


def wait_for_nodes(cluster: LaunchedCluster, count: int) -> float:
    began = time.monotonic()
    while len(cluster.nodes()) < count:
        assert time.monotonic() - began < TIMEOUT_S
    return time.monotonic() - began


def node_ids(cluster: LaunchedCluster) -> set[str]:
    """The IDs of the nodes: a node that Ray declared dead joins again under a new one."""
    return {node["NodeID"] for node in cluster.nodes()}


@pytest.fixture(scope="module")
def cluster(dataset, tmp_path_factory):
    names = ["desk", "bucket", "tracking", "head", "worker-1", "worker-2"]
    with Hosts(tmp_path_factory.mktemp("hosts"), names, hidden=[ROOT], seeing=["desk"]) as hosts:
        bucket, tracking = hosts["bucket"], hosts["tracking"]
        environment = serve_bucket(bucket) | serve_mlflow(tracking, bucket)
        # As in the files for clouds: the head runs no trials.
        workers = ["worker-1", "worker-2"]
        launched = LaunchedCluster(hosts, "head", workers, head_cpus=0, environment=environment)
        started = launched.up()
        assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
        wait_for_server(bucket, 9000, "moto-api/")
        launched.put(dataset, bucket_on(bucket, "data"))
        wait_for_server(tracking, 5000, "health")
        yield launched


def test_search_survives_hosts_powered_off_in_turn(cluster):
    """Trials continue on the other host, and after that one fails too, on the one that is back."""
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "powered-off", evaluations=14)
    start = search.wait_for_all(1)
    first = search.training_host()
    other = next(host for host in cluster.workers if host is not first)

    before = search.histories
    first.power_off()
    gone = search.wait_for_all(1, more_than=before)
    first.power_on()
    back = wait_for_nodes(cluster, 3)
    later = search.histories
    other.power_off()
    again = search.wait_for_all(1, more_than=later)
    assert first.processes("ray::RayTrainWorker")
    other.power_on()
    search.assert_completes(later)
    report("power", start=start, both_trials_continue=gone, back=back, used_again=again)


def test_search_survives_a_network_cut_of_half_a_minute(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "cut")
    search.wait_for_all(1)
    victim, before, members = search.training_host(), search.histories, node_ids(cluster)
    victim.disconnect()
    time.sleep(30)
    victim.reconnect()
    on = search.wait_for_all(1, more_than=before)
    search.assert_completes(before)
    back = wait_for_nodes(cluster, 3)
    was_declared_dead = node_ids(cluster) != members
    report("network cut for 30 s", both_trials_continue=30 + on, back_after_the_search=back)
    print(f"Ray {'declared the host dead' if was_declared_dead else 'waited for the host'}.")


def test_search_survives_a_killed_raylet(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "raylet")
    search.wait_for_all(1)
    victim, before = search.training_host(), search.histories
    (raylet,) = victim.processes("raylet/raylet ")
    victim.run(f"kill -9 {raylet}")
    on = search.wait_for_all(1, more_than=before)
    search.assert_completes(before)
    back = wait_for_nodes(cluster, 3)
    report("raylet killed", both_trials_continue=on, back_after_the_search=back)


def test_killed_driver_resumes_from_another_host(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "driver")
    search.wait_for_all(2)
    before = search.histories
    (driver,) = cluster.head.processes("python /root/search.py")
    cluster.head.run(f"kill -9 {driver}")
    killed = time.monotonic()
    assert search.submission.wait(60) == 1
    resume = f"thermal-search search --address auto --output '{search.output}' --resume"
    search.resume(lambda: cluster.workers[0].start(f". ~/.bashrc; {resume}", search.log))
    search.wait_for_all(1, more_than=before)
    on = time.monotonic() - killed
    search.assert_completes(before)
    report("driver killed", both_trials_continue=on)


def test_search_survives_a_bucket_outage_of_half_a_minute(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "bucket-away")
    search.wait_for_all(1)
    before = search.histories
    cluster.hosts["bucket"].disconnect()
    time.sleep(30)
    cluster.hosts["bucket"].reconnect()
    on = search.wait_for_all(1, more_than=before)
    search.assert_completes(before)
    report("bucket away for 30 s", both_trials_continue=30 + on)


def test_mlflow_outage_of_a_minute_delays_nothing_and_loses_nothing(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "tracking-away")
    search.wait_for_all(1)
    before = search.histories
    cluster.hosts["tracking"].disconnect()
    time.sleep(60)
    search.wait_for_all(1, more_than=before)  # the search does not wait for MLflow
    cluster.hosts["tracking"].reconnect()
    search.assert_completes(before)
    logged = cluster.python(
        "from mlflow.tracking import MlflowClient; c = MlflowClient('http://tracking:5000');"
        "e = c.get_experiment_by_name('thermal-search');"
        "tag = 'thermal_search.trial';"
        "runs = [r for r in c.search_runs([e.experiment_id]) if tag in r.data.tags];"
        "points = {r.data.tags[tag]: c.get_metric_history(r.info.run_id, 'fd_efficientnet_lite0')"
        " for r in runs};"
        "print(*(f'{id}={len(p)}' for id, p in points.items()))"
    ).split()
    assert {f"{id}={search.evaluations}" for id in before} <= set(logged)


def test_search_resumes_on_a_new_cluster_after_the_head_is_lost(cluster: LaunchedCluster):
    """The remaining hosts form the new cluster."""
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "head-lost")
    search.wait_for_all(2)
    before = search.histories
    cluster.head.power_off()
    lost = time.monotonic()
    search.submission.wait(120)
    noticed = time.monotonic() - lost
    began = time.monotonic()
    another = LaunchedCluster(
        cluster.hosts, "worker-1", ["worker-2"], environment=cluster.environment
    )
    started = another.up()
    assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
    up = time.monotonic() - began
    flags = "--output", search.output, "--resume"
    began = time.monotonic()
    search.resume(lambda: another.start_submit(*flags, log=search.log))
    search.wait_for_all(1, more_than=before)
    on = time.monotonic() - began
    search.assert_completes(before)
    report("head lost", desk_notices=noticed, new_cluster=up, both_trials_continue=on)
