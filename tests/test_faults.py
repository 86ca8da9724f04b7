"""Plugs and cables pulled from a cluster in mid-search. docs/faults.md has the figures they print.

Not part of the usual run: `pytest -m faults -n 0 -s`, as root, takes about half an hour.
"""

import contextlib
import json
import math
import time
from typing import Any

import hosts_in_namespaces
import pytest
from hosts_in_namespaces import Machine, Machines
from launched_cluster import (
    ROOT,
    LaunchedCluster,
    bucket_on,
    serve_bucket,
    serve_runs,
    wait_for_server,
)

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing := hosts_in_namespaces.missing()), reason=str(missing)),
]
EVERY = 64
"""Images between two evaluations: some seconds."""

TIMEOUT_S = 600


class RunningSearch:
    """Two trials at once, one worker each, from a bucket and into it, started by `ray submit`."""

    def __init__(self, cluster: LaunchedCluster, name: str, *, evaluations: int = 6) -> None:
        self.cluster, folder = cluster, cluster.machines.folder
        self.output = bucket_on(cluster.machines["bucket"], name)
        self.log, self.mirror = folder / f"{name}.log", folder / f"{name}.json"
        self.planned, self.known = evaluations, dict[str, list[Any]]()
        flags = ["--data", bucket_on(cluster.machines["bucket"], "data"), "--output", self.output]
        flags += ["--architectures", "cgan,wgan", "--trials", 2, "--slots", 2, "--reduction", 100]
        flags += ["--images", EVERY * evaluations, "--evaluate-every", EVERY]
        flags += ["--features", "efficientnet-lite0"]
        self.submission = cluster.start_submit(*flags, log=self.log)
        cluster.start_python(MIRROR.format(address=self.output, copy=self.mirror), self.log)

    @property
    def histories(self) -> dict[str, list[Any]]:
        """Of each trial, as the record tells."""
        # Of an upload that broke off, the test's S3 server keeps a part, where a real one keeps the
        # file before it: then what was known stands.
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            trials = json.loads(self.mirror.read_text())["trials"]
            self.known = {trial["id"]: trial["history"] for trial in trials}
        return self.known

    def wait_for_all(self, least: int, *, more_than: dict[str, list[Any]] | None = None) -> float:
        """Until both trials have so many evaluations (more than before); the seconds it took."""
        before, began = more_than or {}, time.monotonic()
        while True:
            now = {id: len(history) for id, history in self.histories.items()}
            wanted = {id: min(len(before.get(id, [])) + least, self.planned) for id in now}
            if len(now) == 2 and all(now[id] >= wanted[id] for id in now):
                return time.monotonic() - began
            assert self.submission.poll() in (None, 0), self.log.read_text()[-4000:]
            assert time.monotonic() - began < TIMEOUT_S, (now, self.log.read_text()[-4000:])
            time.sleep(0.2)

    def victim(self) -> Machine:
        """A machine that trains one of the trials."""
        return next(m for m in self.cluster.workers if m.processes("ray::RayTrainWorker"))

    def end(self, before: dict[str, list[Any]]) -> None:
        """It ends complete: no trial missing, no evaluation left out or told twice, and what was
        known before the fault neither lost nor trained again."""
        assert self.submission.wait(1200) == 0, self.log.read_text()[-4000:]
        trials = json.loads(self.cluster.read(self.output, "summary.json"))["trials"]
        self.mirror.with_suffix(".end").touch()
        assert [trial["status"] for trial in trials] == ["completed", "completed"]
        for trial in trials:
            images = [item["images"] for item in trial["history"]]
            assert [math.floor(i / EVERY) for i in images] == list(range(1, self.planned + 1))
            known = before[trial["id"]]
            assert trial["history"][: len(known)] == known


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
"""Runs at the desk: only machines of the network reach the bucket."""


def tell(fault: str, **seconds: float) -> None:
    print(f"\n{fault}: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))


def wait_for_nodes(cluster: LaunchedCluster, count: int) -> float:
    began = time.monotonic()
    while len(cluster.nodes()) < count:
        assert time.monotonic() - began < TIMEOUT_S
    return time.monotonic() - began


def ids(cluster: LaunchedCluster) -> set[str]:
    """A machine that was counted out joins again under another."""
    return {node["NodeID"] for node in cluster.nodes()}


@pytest.fixture(scope="module")
def cluster(dataset, tmp_path_factory):
    names = ["desk", "bucket", "tracking", "head", "worker-1", "worker-2"]
    with Machines(
        tmp_path_factory.mktemp("machines"), names, hidden=[ROOT], seeing=["desk"]
    ) as machines:
        bucket, tracking = machines["bucket"], machines["tracking"]
        environment = serve_bucket(bucket) | serve_runs(tracking, bucket)
        # As in the clouds' files: the head leads, and trains nothing.
        workers = ["worker-1", "worker-2"]
        launched = LaunchedCluster(machines, "head", workers, head_cpus=0, environment=environment)
        started = launched.up()
        assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
        wait_for_server(bucket, 9000, "moto-api/")
        launched.put(dataset, bucket_on(bucket, "data"))
        wait_for_server(tracking, 5000, "health")
        yield launched


def test_a_machine_that_is_powered_off_and_comes_back(cluster):
    """Its trials go on elsewhere, and when the other machine goes too, on the one that is back."""
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "powered-off", evaluations=14)
    start = search.wait_for_all(1)
    first = search.victim()
    other = next(machine for machine in cluster.workers if machine is not first)

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
    search.end(later)
    tell("power", start=start, both_trials_go_on=gone, is_back=back, and_is_used=again)


def test_a_network_that_is_cut_for_half_a_minute(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "cut")
    search.wait_for_all(1)
    victim, before, members = search.victim(), search.histories, ids(cluster)
    victim.cut()
    time.sleep(30)
    victim.mend()
    on = search.wait_for_all(1, more_than=before)
    search.end(before)
    back = wait_for_nodes(cluster, 3)
    was_out = ids(cluster) != members
    tell("network cut for 30 s", both_trials_go_on=30 + on, is_back_after_the_search=back)
    print(f"The machine was {'counted out and joined again' if was_out else 'waited for'}.")


def test_a_raylet_that_is_killed(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "raylet")
    search.wait_for_all(1)
    victim, before = search.victim(), search.histories
    (raylet,) = victim.processes("raylet/raylet ")
    victim.run(f"kill -9 {raylet}")
    on = search.wait_for_all(1, more_than=before)
    search.end(before)
    back = wait_for_nodes(cluster, 3)
    tell("raylet killed", both_trials_go_on=on, is_back_after_the_search=back)


def test_a_driver_that_is_killed_and_resumed_from_another_machine(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "driver")
    search.wait_for_all(2)
    before = search.histories
    (driver,) = cluster.head.processes("python /root/search.py")
    cluster.head.run(f"kill -9 {driver}")
    assert search.submission.wait(60) == 1
    resume = f"thermal-search search --address auto --output '{search.output}' --resume"
    search.submission = cluster.workers[0].start(f". ~/.bashrc; {resume}", search.log)
    on = search.wait_for_all(1, more_than=before)
    search.end(before)
    tell("driver killed", both_trials_go_on=on)


def test_a_bucket_that_is_away_for_half_a_minute(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "bucket-away")
    search.wait_for_all(1)
    before = search.histories
    cluster.machines["bucket"].cut()
    time.sleep(30)
    cluster.machines["bucket"].mend()
    on = search.wait_for_all(1, more_than=before)
    search.end(before)
    tell("bucket away for 30 s", both_trials_go_on=30 + on)


def test_an_mlflow_server_that_is_away_for_a_minute(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "tracking-away")
    search.wait_for_all(1)
    before = search.histories
    cluster.machines["tracking"].cut()
    time.sleep(60)
    search.wait_for_all(1, more_than=before)  # nothing of the search waits for it
    cluster.machines["tracking"].mend()
    search.end(before)
    told = cluster.python(
        "from mlflow.tracking import MlflowClient; c = MlflowClient('http://tracking:5000');"
        "e = c.get_experiment_by_name('thermal-search');"
        "tag = 'thermal_search.trial';"
        "runs = [r for r in c.search_runs([e.experiment_id]) if tag in r.data.tags];"
        "told = {r.data.tags[tag]: c.get_metric_history(r.info.run_id, 'fd_efficientnet_lite0')"
        " for r in runs};"
        "print(*(f'{id}={len(points)}' for id, points in told.items()))"
    ).split()
    assert {f"{id}={search.planned}" for id in before} <= set(told)


def test_a_head_that_is_lost(cluster: LaunchedCluster):
    """A new cluster of the machines that are left, and the rest of the search on it."""
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
        cluster.machines, "worker-1", ["worker-2"], environment=cluster.environment
    )
    started = another.up()
    assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
    up = time.monotonic() - began
    search.submission = another.start_submit("--output", search.output, "--resume", log=search.log)
    on = search.wait_for_all(1, more_than=before)
    search.end(before)
    tell("head lost", desk_notices=noticed, new_cluster=up, both_trials_go_on=on)
