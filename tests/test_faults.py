"""Plugs and cables pulled from a cluster in mid-search. docs/faults.md has the figures they print.

Not part of the usual run: `pytest -m faults -s`, as root, takes about half an hour.
"""

import json
import math
import shutil
import time

import machines_in_namespaces
import pytest
from launched_cluster import ROOT, LaunchedCluster, serve_runs
from machines_in_namespaces import Machine, Machines

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(missing := machines_in_namespaces.missing()), reason=str(missing)),
]
EVERY = 256
"""Images between two evaluations: about ten seconds."""

PATIENCE_S = 400


class RunningSearch:
    """Two trials at once, one worker each, started by `ray submit` and watched by its summary."""

    def __init__(self, cluster: LaunchedCluster, name: str, *, evaluations: int = 10) -> None:
        self.cluster, self.folder = cluster, cluster.machines.folder
        self.output, self.log = self.folder / name, self.folder / f"{name}.log"
        self.planned = evaluations
        flags = ["--data", self.folder / "dataset", "--output", self.output]
        flags += ["--architectures", "dcgan,wgan", "--trials", 2, "--slots", 2, "--reduction", 100]
        flags += ["--images", EVERY * evaluations, "--evaluate-every", EVERY]
        flags += ["--features", "efficientnet-lite0"]
        self.submission = cluster.start_submit(*flags, log=self.log)

    @property
    def evaluations(self) -> dict[str, int]:
        """How many each trial has."""
        try:
            trials = json.loads((self.output / "summary.json").read_text())["trials"]
        except FileNotFoundError:
            return {}
        return {trial["id"]: len(trial["history"]) for trial in trials}

    def wait_for_all(self, least: int, *, more_than: dict[str, int] | None = None) -> float:
        """Until both trials have so many evaluations (more than before); the seconds it took."""
        before, began = more_than or {}, time.monotonic()
        while True:
            now = self.evaluations
            wanted = {id: min(before.get(id, 0) + least, self.planned) for id in now}
            if len(now) == 2 and all(now[id] >= wanted[id] for id in now):
                return time.monotonic() - began
            assert self.submission.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() - began < PATIENCE_S, (now, self.log.read_text()[-4000:])
            time.sleep(0.2)

    def victim(self) -> Machine:
        """A machine that trains one of the trials."""
        return next(m for m in self.cluster.workers if m.processes("ray::RayTrainWorker"))

    def end(self, submission=None) -> None:
        """It ends complete: no trial missing, no evaluation left out or told twice."""
        submission = submission or self.submission
        assert submission.wait(1200) == 0, self.log.read_text()[-4000:]
        trials = json.loads((self.output / "summary.json").read_text())["trials"]
        assert [trial["status"] for trial in trials] == ["completed", "completed"]
        for trial in trials:
            images = [item["images"] for item in trial["history"]]
            assert [math.floor(i / EVERY) for i in images] == list(range(1, self.planned + 1))


def tell(fault: str, **seconds: float) -> None:
    print(f"\n{fault}: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))


def wait_for_nodes(cluster: LaunchedCluster, count: int) -> float:
    began = time.monotonic()
    while len(cluster.nodes()) < count:
        assert time.monotonic() - began < PATIENCE_S
    return time.monotonic() - began


@pytest.fixture(scope="module")
def cluster(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    shutil.copytree(dataset, folder / "dataset")
    names = ["desk", "tracking", "head", "worker-1", "worker-2"]
    with Machines(folder, names, hidden=[ROOT], seeing=["desk"]) as machines:
        # As in the clouds' files: the head leads, and trains nothing.
        workers, runs = ["worker-1", "worker-2"], serve_runs(machines["tracking"])
        launched = LaunchedCluster(machines, "head", workers, head_cpus=0, environment=runs)
        started = launched.up()
        assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
        yield launched


def test_a_machine_that_is_powered_off_and_comes_back(cluster):
    """Its trials go on elsewhere, and when the other machine goes too, on the one that is back."""
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "powered-off", evaluations=30)
    start = search.wait_for_all(1)
    first = search.victim()
    other = next(machine for machine in cluster.workers if machine is not first)

    before = search.evaluations
    first.power_off()
    gone = search.wait_for_all(1, more_than=before)
    first.power_on()
    back = wait_for_nodes(cluster, 3)
    before = search.evaluations
    other.power_off()
    again = search.wait_for_all(1, more_than=before)
    assert first.processes("ray::RayTrainWorker")
    other.power_on()
    search.end()
    tell("power", start=start, both_trials_go_on=gone, is_back=back, and_is_used=again)


def test_a_network_that_is_cut_for_half_a_minute(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "cut")
    search.wait_for_all(1)
    victim, before = search.victim(), search.evaluations
    victim.cut()
    time.sleep(30)
    victim.mend()
    on = search.wait_for_all(1, more_than=before)
    search.end()
    back = wait_for_nodes(cluster, 3)
    tell("network cut for 30 s", both_trials_go_on=30 + on, is_back_after_the_search=back)


def test_a_raylet_that_is_killed(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "raylet")
    search.wait_for_all(1)
    victim, before = search.victim(), search.evaluations
    (raylet,) = victim.processes("raylet/raylet ")
    victim.run(f"kill -9 {raylet}")
    on = search.wait_for_all(1, more_than=before)
    search.end()
    back = wait_for_nodes(cluster, 3)
    tell("raylet killed", both_trials_go_on=on, is_back_after_the_search=back)


def test_a_driver_that_is_killed_and_resumed_from_another_machine(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "driver")
    search.wait_for_all(2)
    before = search.evaluations
    (driver,) = cluster.head.processes("python /root/search.py")
    cluster.head.run(f"kill -9 {driver}")
    assert search.submission.wait(60) == 1
    resume = f"thermal-search search --address auto --output {search.output} --resume"
    resumed = cluster.workers[0].start(f". ~/.bashrc; {resume}", search.log)
    search.submission = resumed
    on = search.wait_for_all(1, more_than=before)
    search.end(resumed)
    tell("driver killed", both_trials_go_on=on)


def test_an_mlflow_server_that_is_away_for_a_minute(cluster):
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "tracking", evaluations=20)
    search.wait_for_all(1)
    tracking, before = cluster.machines["tracking"], search.evaluations
    tracking.cut()
    time.sleep(60)
    meanwhile = sum(search.evaluations.values()) - sum(before.values())
    tracking.mend()
    on = search.wait_for_all(1, more_than=search.evaluations)
    search.end()
    told = cluster.python(
        "from mlflow.tracking import MlflowClient; c = MlflowClient('http://tracking:5000');"
        "e = c.get_experiment_by_name('thermal-search');"
        "tag = 'thermal_search.trial';"
        "runs = [r for r in c.search_runs([e.experiment_id]) if tag in r.data.tags];"
        "told = {r.data.tags[tag]: c.get_metric_history(r.info.run_id, 'fd_efficientnet_lite0')"
        " for r in runs};"
        "print(*(f'{id}={len(points)}' for id, points in told.items()))"
    ).split()
    assert {f"{id}={count}" for id, count in search.evaluations.items()} <= set(told)
    print(f"\nMLflow away: {meanwhile} evaluations in that minute", end="")
    tell("", both_trials_go_on=on)


def test_a_head_that_is_lost(cluster: LaunchedCluster):
    """A new cluster, and the rest of the search on it."""
    wait_for_nodes(cluster, 3)
    search = RunningSearch(cluster, "head")
    search.wait_for_all(2)
    before = search.evaluations
    cluster.head.power_off()
    lost = time.monotonic()
    search.submission.wait(120)
    noticed = time.monotonic() - lost
    cluster.head.power_on()
    began = time.monotonic()
    started = cluster.up()
    assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
    up = time.monotonic() - began
    search.submission = cluster.start_submit(
        "--output", search.output, "--resume", "--slots", 2, log=search.log
    )
    on = search.wait_for_all(1, more_than=before)
    search.end()
    tell("head lost", desk_notices=noticed, new_cluster=up, both_trials_go_on=on)
