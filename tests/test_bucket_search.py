"""A search from a bucket into a bucket: its driver killed, then resumed from the bucket alone."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from object_store import CREDENTIALS, object_store
from summaries import small

from thermal_search.errors import SearchError
from thermal_search.generator import load
from thermal_search.storage import Location
from thermal_search.tracking.runs import TRIAL_TAG
from thermal_search.tracking.store import EXPERIMENT, store_of

TRIALS, IMAGES, EVERY = 2, 96, 32


def command(*arguments):
    return [sys.executable, "-m", "thermal_search.cli", *map(str, arguments)]


@pytest.fixture(scope="module")
def store():
    with object_store() as server:
        yield server


def test_a_bucket_needs_a_tracking_server(monkeypatch):
    with pytest.raises(SearchError, match=r"in a bucket.*set MLFLOW_TRACKING_URI"):
        store_of(Location.of("s3://bucket/search"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store_of(Location.of("s3://bucket/search")) == "http://127.0.0.1:5000"


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # MLflow's database layer warns of its own affairs
def test_search_in_a_bucket_survives_its_driver(store, dataset, tmp_path):
    bucket = Location.of(store.uri("team"))
    bucket.make_folder()
    for file in Location.of(dataset).list(deep=True):
        path = bucket / "data" / file.local.relative_to(dataset)
        path.write_bytes(file.read_bytes())
    output = bucket / "searches" / "first"
    flags = ["--data", bucket / "data", "--output", output, "--architectures", "dcgan"]
    flags += ["--trials", TRIALS, "--images", IMAGES, "--evaluate-every", EVERY, "--slots", 1]
    flags += ["--features", "efficientnet-lite0", "--objective", "pareto:fid,l1"]
    flags += ["--fix", ",".join(small("dcgan"))]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    log = tmp_path / "log"

    def summary():
        try:
            return json.loads((output / "summary.json").read_text())
        except FileNotFoundError:
            return {"trials": []}

    with log.open("wb") as sink:
        driver = subprocess.Popen(
            command("search", *flags), stdout=sink, stderr=sink, env=environment, cwd=tmp_path
        )
        deadline = time.monotonic() + 800
        try:
            while not any(trial["images"] >= EVERY for trial in summary()["trials"]):
                assert time.monotonic() < deadline, log.read_text()
                assert driver.poll() is None, log.read_text()
                time.sleep(0.1)
        finally:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
    before = summary()
    time.sleep(5)  # Ray's own processes notice that their driver is gone
    resumed = subprocess.run(
        command("search", "--output", output, "--resume"),
        capture_output=True, text=True, timeout=600, check=False, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr[-3000:]

    after = summary()
    assert [trial["status"] for trial in after["trials"]] == ["completed"] * TRIALS
    for trial in after["trials"]:
        assert [item["images"] for item in trial["history"]] == [32, 64, 96]
    (begun,) = before["trials"][:1]
    first = next(trial for trial in after["trials"] if trial["id"] == begun["id"])
    assert first["history"][: len(begun["history"])] == begun["history"]
    # Two objectives: no trial is stopped, and Optuna and MLflow get both.
    points = {t["id"]: tuple(t["objective"].values()) for t in after["trials"]}
    assert all(list(t["objective"]) == ["fd_efficientnet_lite0", "l1"] for t in after["trials"])
    lowest = [
        min(points, key=lambda id: (points[id][axis], points[id][1 - axis])) for axis in (0, 1)
    ]
    assert {after["pareto_front"][0], after["pareto_front"][-1]} == set(lowest)
    assert after["best"] == after["pareto_front"][0]
    assert resumed.stdout.count("on the Pareto front") == len(after["pareto_front"])
    assert (output / "pareto_front.png").read_bytes().startswith(b"\x89PNG")
    assert 'alt="inverted grey, scene 1"' in (output / "report.html").read_text()
    client = MlflowClient(environment["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    tagged = client.search_runs([experiment], "tags.on_pareto_front = 'true'")
    assert {run.data.tags[TRIAL_TAG] for run in tagged} == set(after["pareto_front"])
    assert not any(p.name == "commit.json" for p in output.list(deep=True))  # all have ended
    assert sum(p.name == "generator.pt" for p in output.list(deep=True)) >= TRIALS
    assert any(p.name == "images-00000096.png" for p in output.list(deep=True))
    for secret in CREDENTIALS["AWS_SECRET_ACCESS_KEY"], "Traceback":
        assert secret not in log.read_text() + resumed.stdout + resumed.stderr
    # Nothing was put on the disk of this machine under the name of the bucket.
    assert {p.name for p in Path(tmp_path).iterdir()} <= {"log", "mlflow.db", "mlruns"}

    exported = subprocess.run(
        command("export", output), capture_output=True, text=True, timeout=300, check=False
    )
    assert exported.returncode == 0, exported.stderr
    assert load(output / "generator").config.size == 32
