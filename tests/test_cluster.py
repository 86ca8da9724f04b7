"""`ray up`, `ray submit`, `ray job submit` and `ray down` on three machines, in namespaces.

`pytest -m cluster -n 0 -s`, as root, prints the seconds of each part.
"""

import contextlib
import json
import time
from collections.abc import Generator

import hosts_in_namespaces
import pytest
from hosts_in_namespaces import Machines
from launched_cluster import (
    ROOT,
    LaunchedCluster,
    bucket_on,
    listening,
    serve_bucket,
    serve_runs,
    wait_for_server,
)
from summaries import assert_is_complete

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(missing := hosts_in_namespaces.missing()), reason=str(missing)),
]
NODES = ["head", "worker-1", "worker-2"]
IMAGES = 64
FLAGS = ["--images", IMAGES, "--evaluate-every", 32, "--features", "efficientnet-lite0"]
TUNNEL = "ssh -o StrictHostKeyChecking=no -i ~/.ssh/id_ed25519 -N -L 8265:127.0.0.1:8265 head"


@contextlib.contextmanager
def timed(part: str) -> Generator[None]:
    began = time.monotonic()
    yield
    print(f"\n{part}: {time.monotonic() - began:.0f} s")


@pytest.fixture(scope="module")
def cluster(dataset, tmp_path_factory):
    """Three machines of a cluster, a desk, and one that serves a bucket and MLflow."""
    names = ["desk", "servers", *NODES]
    folder = tmp_path_factory.mktemp("machines")
    with (
        timed("everything"),
        Machines(folder, names, hidden=[ROOT], seeing=["desk"]) as machines,
    ):
        servers = machines["servers"]
        environment = {
            **serve_bucket(servers),
            **serve_runs(servers, servers),
            # How soon the others' Ray ends after the head's; a minute by default.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
        }
        launched = LaunchedCluster(machines, "head", NODES[1:], environment=environment)
        with timed("ray up"):
            started = launched.up()
        assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
        with timed("the servers, after it, and the dataset's way to the bucket"):
            wait_for_server(servers, 9000, "moto-api/")
            launched.put(dataset, bucket_on(servers, "data"))
            wait_for_server(servers, 5000, "health")
        yield launched


@pytest.fixture(scope="module")
def bucket(cluster):
    """The address of a folder in it."""
    return lambda path: bucket_on(cluster.machines["servers"], path)


@pytest.fixture(scope="module")
def submitted(cluster, bucket):
    """Two slots of two workers each, spread over the three machines; sent off from cluster/."""
    output = bucket("by submit")
    flags = ["--data", bucket("data"), "--output", output, *FLAGS]
    flags += ["--architectures", "dcgan,wgan", "--trials", 4, "--slots", 2, "--workers", 2]
    flags += ["--placement", "spread", "--wait-for-nodes", 3]
    log = cluster.machines.folder / "submit.log"
    seen = dict.fromkeys(NODES, 0)
    with timed("ray submit"):
        searching = cluster.start_submit(
            *flags, log=log, script="search.py", folder=ROOT / "cluster"
        )
        while searching.poll() is None:
            for name in NODES:
                workers = cluster.machines[name].processes("ray::RayTrainWorker")
                seen[name] = max(seen[name], len(workers))
            time.sleep(2)
    assert searching.returncode == 0, log.read_text()[-4000:]
    return json.loads(cluster.read(output, "summary.json")), log.read_text(), seen


def test_workers_of_one_search_are_on_every_machine(submitted):
    _, _, seen = submitted

    assert sum(seen.values()) >= 4
    assert all(seen.values()), seen


def test_its_results_have_the_structure_of_a_search_on_one_machine(submitted):
    summary, _, _ = submitted

    assert_is_complete(summary, trials=4, images=IMAGES)


def test_its_trials_are_runs_on_the_server_and_its_pictures_in_the_bucket(
    cluster, bucket, submitted
):
    summary, _, _ = submitted
    told = cluster.python(
        "from mlflow.tracking import MlflowClient; c = MlflowClient('http://servers:5000');"
        "e = c.get_experiment_by_name('thermal-search');"
        "runs = c.search_runs([e.experiment_id]);"
        "print(*(r.data.tags.get('thermal_search.trial', '-') for r in runs))"
    )
    assert {trial["id"] for trial in summary["trials"]} | {"-"} == set(told.split())
    kept = cluster.list(bucket("mlflow"))
    evaluations = sum(len(trial["history"]) for trial in summary["trials"])
    assert len([path for path in kept if path.endswith(".png")]) == evaluations


def test_the_server_keeps_them_in_postgresql(cluster, submitted):
    servers = cluster.machines["servers"]
    if not servers.processes("postgres -D"):
        pytest.skip("no PostgreSQL here (Debian's package postgresql): MLflow ran on SQLite")
    summary, _, _ = submitted
    asked = "psql -h /tmp/postgres -U postgres -Atc 'select count(*) from runs'"

    assert servers.run(asked).stdout.strip() == str(len(summary["trials"]) + 1)


def test_it_says_what_it_waits_for_and_what_it_has(submitted):
    _, log, _ = submitted

    assert "Searching on 3 machine(s), 6 CPUs: 2 slot(s)" in log
    assert "completed" in log


def test_a_job_is_searched_by_the_same_command(cluster, bucket):
    tunnel = cluster.desk.start(TUNNEL, cluster.machines.folder / "tunnel.log")
    flags = f"--data '{bucket('data')}' --output '{bucket('by job')}' "
    flags += " ".join(map(str, FLAGS)) + " --architectures wgan --trials 1 --slots 1"
    submission = "ray job submit --address http://127.0.0.1:8265 -- thermal-search search"
    try:
        with timed("ray job submit"):
            told = cluster.desk.run(
                f"sleep 1; RAY_AUTH_MODE=token {submission} --address auto {flags}", timeout=400
            )
    finally:
        tunnel.kill()
        tunnel.wait()
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    summary = json.loads(cluster.read(bucket("by job"), "summary.json"))
    assert_is_complete(summary, trials=1, images=IMAGES)
    assert summary["trials"][0]["status"] == "completed"


def test_whoever_has_no_token_is_turned_away(cluster):
    asked = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/jobs/"

    assert cluster.head.run(asked).stdout == "401"


def test_the_dashboard_listens_on_the_head_alone(cluster):
    dashboards = {place for place in listening(cluster.head) if place.endswith(":8265")}

    assert dashboards == {"127.0.0.1:8265"}


def test_the_token_is_in_no_file_but_its_own(cluster, submitted):
    token = (cluster.desk.home / ".ray" / "auth_token").read_text().strip()
    assert len(token) > 20
    for machine in (cluster.head, *cluster.workers):
        found = machine.run(f"grep -rlsF -D skip {token} /root /tmp/ray")
        assert found.stdout.split() == ["/root/.ray/auth_token"], machine.name


def test_a_second_up_is_quick_and_disturbs_nothing(cluster):
    began = time.monotonic()
    with timed("a second ray up"):
        again = cluster.up("--no-restart", folder=ROOT / "cluster")

    assert again.returncode == 0, again.stderr[-2000:]
    assert time.monotonic() - began < 60
    assert len(cluster.nodes()) == 3


def test_a_wrong_flag_is_one_sentence_at_the_desk(cluster):
    told = cluster.submit("--output", "none", "--trials", "3")

    assert told.returncode == 1
    assert "search.py: A search needs --data" in told.stdout
    assert "Traceback" not in told.stdout


def test_down_ends_ray_on_every_machine(cluster):
    with timed("ray down"):
        assert cluster.down().returncode == 0
    deadline = time.monotonic() + 60
    machines = [cluster.head, *cluster.workers]
    while left := [machine.name for machine in machines if machine.processes("raylet")]:
        assert time.monotonic() < deadline, f"Ray still runs on {left}"
        time.sleep(1)
