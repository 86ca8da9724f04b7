"""`ray up`, `ray submit`, `ray job submit` and `ray down` on three hosts in namespaces.

`pytest -m cluster -n 0 -s`, as root, prints the seconds of each stage.
"""

import contextlib
import json
import time
from collections.abc import Generator

import hosts_in_namespaces
import pytest
from hosts_in_namespaces import Hosts
from launched_cluster import (
    ROOT,
    LaunchedCluster,
    bucket_on,
    listening,
    serve_bucket,
    serve_mlflow,
    wait_for_server,
)
from summaries import assert_is_complete, small

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
def timed(stage: str) -> Generator[None]:
    began = time.monotonic()
    yield
    print(f"\n{stage}: {time.monotonic() - began:.0f} s")


@pytest.fixture(scope="module")
def cluster(dataset, tmp_path_factory):
    """A cluster of three hosts, a desk, and a host that serves a bucket and MLflow."""
    names = ["desk", "servers", *NODES]
    folder = tmp_path_factory.mktemp("hosts")
    with (
        timed("all tests"),
        Hosts(folder, names, hidden=[ROOT], seeing=["desk"]) as hosts,
    ):
        servers = hosts["servers"]
        environment = {
            **serve_bucket(servers),
            **serve_mlflow(servers, servers),
            # Ray's workers are nice by default: beside other tests they would hardly run.
            "RAY_worker_niceness": "0",
            # How soon Ray on the workers ends after the head's; a minute by default.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
        }
        launched = LaunchedCluster(hosts, "head", NODES[1:], environment=environment)
        with timed("ray up"):
            started = launched.up()
        assert started.returncode == 0, started.stdout[-3000:] + started.stderr[-3000:]
        with timed("start of the servers, and upload of the dataset"):
            wait_for_server(servers, 9000, "moto-api/")
            launched.put(dataset, bucket_on(servers, "data"))
            wait_for_server(servers, 5000, "health")
        yield launched


@pytest.fixture(scope="module")
def bucket(cluster):
    """A function: the address of a folder in the bucket."""
    return lambda path: bucket_on(cluster.hosts["servers"], path)


@pytest.fixture(scope="module")
def submitted(cluster, bucket):
    """The summary and log of a search with two slots of two workers each, spread over three hosts.

    Also the largest number of workers on each host at a time. Submitted from the folder cluster/.
    """
    output = bucket("by submit")
    flags = ["--data", bucket("data"), "--output", output, *FLAGS]
    flags += ["--architectures", "dcgan,wgan", "--trials", 4, "--slots", 2, "--workers", 2]
    flags += ["--fix", ",".join(small("dcgan", "wgan"))]
    flags += ["--placement", "spread", "--wait-for-nodes", 3]
    log = cluster.hosts.folder / "submit.log"
    max_workers = dict.fromkeys(NODES, 0)
    with timed("ray submit"):
        searching = cluster.start_submit(
            *flags, log=log, script="search.py", folder=ROOT / "cluster"
        )
        while searching.poll() is None:
            for name in NODES:
                workers = cluster.hosts[name].processes("ray::RayTrainWorker")
                max_workers[name] = max(max_workers[name], len(workers))
            time.sleep(2)
    assert searching.returncode == 0, log.read_text()[-4000:]
    return json.loads(cluster.read(output, "summary.json")), log.read_text(), max_workers


def test_search_runs_workers_on_every_host(submitted):
    _, _, max_workers = submitted

    assert sum(max_workers.values()) >= 4
    assert all(max_workers.values()), max_workers


def test_summary_is_complete_as_after_a_search_on_one_machine(submitted):
    summary, _, _ = submitted

    assert_is_complete(summary, trials=4, images=IMAGES)


def test_trials_are_mlflow_runs_and_their_images_are_in_the_bucket(cluster, bucket, submitted):
    summary, _, _ = submitted
    logged = cluster.python(
        "from mlflow.tracking import MlflowClient; c = MlflowClient('http://servers:5000');"
        "e = c.get_experiment_by_name('thermal-search');"
        "runs = c.search_runs([e.experiment_id]);"
        "print(*(r.data.tags.get('thermal_search.trial', '-') for r in runs))"
    )
    assert {trial["id"] for trial in summary["trials"]} | {"-"} == set(logged.split())
    paths = cluster.list(bucket("mlflow"))
    evaluations = sum(len(trial["history"]) for trial in summary["trials"])
    untrained = len(summary["trials"])
    assert len([path for path in paths if path.endswith(".png")]) == evaluations + untrained


def test_mlflow_server_stores_runs_in_postgresql(cluster, submitted):
    servers = cluster.hosts["servers"]
    if not servers.processes("postgres -D"):
        pytest.skip("no PostgreSQL here (Debian's package postgresql): MLflow ran on SQLite")
    summary, _, _ = submitted
    query = "psql -h /tmp/postgres -U postgres -Atc 'select count(*) from runs'"

    assert servers.run(query).stdout.strip() == str(len(summary["trials"]) + 1)


def test_log_names_the_nodes_and_the_end_of_trials(submitted):
    _, log, _ = submitted

    assert "Searching on 3 node(s), 6 CPUs: 2 slot(s)" in log
    assert "completed" in log
    assert "lost its slot" not in log
    assert "Traceback" not in log


def test_ray_job_resumes_the_finished_search(cluster, bucket, submitted):
    """With the command of a machine alone, in a job's environment; no slot is started again."""
    summary, _, _ = submitted
    tunnel = cluster.desk.start(TUNNEL, cluster.hosts.folder / "tunnel.log")
    flags = f"--output '{bucket('by submit')}' --resume"
    job_command = "ray job submit --address http://127.0.0.1:8265 -- thermal-search search"
    try:
        with timed("ray job submit"):
            job = cluster.desk.run(
                f"sleep 1; RAY_AUTH_MODE=token {job_command} --address auto {flags}", timeout=400
            )
    finally:
        tunnel.kill()
        tunnel.wait()
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    assert f"{summary['best']}" in job.stdout
    assert json.loads(cluster.read(bucket("by submit"), "summary.json")) == summary


def test_requests_without_a_token_are_refused(cluster):
    request = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/jobs/"

    assert cluster.head.run(request).stdout == "401"


def test_dashboard_listens_on_loopback_only(cluster):
    dashboards = {address for address in listening(cluster.head) if address.endswith(":8265")}

    assert dashboards == {"127.0.0.1:8265"}


def test_token_is_in_its_own_file_only(cluster, submitted):
    token = (cluster.desk.home / ".ray" / "auth_token").read_text().strip()
    assert len(token) > 20
    for host in (cluster.head, *cluster.workers):
        files = host.run(f"grep -rlsF -D skip {token} /root /tmp/ray")
        assert files.stdout.split() == ["/root/.ray/auth_token"], host.name


def test_second_ray_up_is_quick_and_disturbs_nothing(cluster):
    began = time.monotonic()
    with timed("a second ray up"):
        again = cluster.up("--no-restart", folder=ROOT / "cluster")

    assert again.returncode == 0, again.stderr[-2000:]
    assert time.monotonic() - began < 60
    assert len(cluster.nodes()) == 3


def test_wrong_flag_is_one_sentence_at_the_desk(cluster):
    submission = cluster.submit("--output", "none", "--trials", "3")

    assert submission.returncode == 1
    assert "search.py: A search needs --data" in submission.stdout
    assert "Traceback" not in submission.stdout


def test_ray_down_ends_ray_on_every_host(cluster):
    with timed("ray down"):
        assert cluster.down().returncode == 0
    deadline = time.monotonic() + 60
    hosts = [cluster.head, *cluster.workers]
    while left := [host.name for host in hosts if host.processes("raylet")]:
        assert time.monotonic() < deadline, f"Ray still runs on {left}"
        time.sleep(1)
