"""A tracking server that goes away and comes back: nothing is lost, doubled or out of order."""

import os
import subprocess
import sys
import threading
import time
import urllib.request

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from object_store import Relay, free_port
from PIL import Image
from ray.tune.experiment import Trial

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.log_queue import LogQueue
from thermal_search.tracking.runs import SearchLogger, require_store
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.request import plan_from_flags

METRIC = "fd_efficientnet_lite0"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server that also keeps the images, behind a way that can be closed."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    deadline = time.monotonic() + 240
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
            break
        except OSError:
            assert time.monotonic() < deadline, (folder / "log").read_text()
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
    relay = Relay(port)
    yield relay
    relay.close()
    os.killpg(process.pid, 15)
    process.wait(30)


@pytest.mark.filterwarnings("ignore")
def test_a_server_that_was_away_finds_everything_once_and_in_order(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    output = Location.of(tmp_path / "search")
    grid = output / "grid.png"
    with grid.open_output() as file:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, format="png")
    require_store(output)
    log, said = SearchLogger(output, "a-search", {"trials": 2}), []
    log.open()
    log_queue = LogQueue(said.append)
    log_queue.add(lambda: log.start_trial("trial-1", "pix2pix", {"l1": 100.0}))
    log_queue.add(lambda: log.log_evaluation("trial-1", 10, {"fid": 9.0}, grid))
    assert log_queue.close(60) == 0

    server.close()
    away = LogQueue(said.append)
    asked = time.monotonic()
    for images in (20, 30, 40):
        away.add(
            lambda images=images: log.log_evaluation("trial-1", images, {"fid": 1.0 / images}, grid)
        )
    away.add(lambda: log.start_trial("trial-2", "wgan", {}))
    away.add(lambda: log.log_evaluation("trial-2", 10, {"fid": 2.0}))
    away.add(lambda: log.end_trial("trial-2", "completed", ""))
    assert time.monotonic() - asked < 1, "the search waited for the server"
    assert away.close(2) == 6, "nothing can have been told"
    assert len(said) == 1
    assert "MLflow does not answer" in said[0]

    back = LogQueue(said.append)
    for entry in away.entries:
        back.add(entry)
    threading.Timer(1, server.open).start()
    assert back.close(60) == 0
    client = MlflowClient(f"http://127.0.0.1:{server.port}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "thermal-search"]
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 3
    history = client.get_metric_history(log.runs["trial-1"].info.run_id, "fid")
    assert [point.step for point in history] == [10, 20, 30, 40]
    assert client.get_run(log.runs["trial-2"].info.run_id).info.status == "FINISHED"
    pictures = client.list_artifacts(log.runs["trial-1"].info.run_id, "images")
    assert len([p for p in pictures if p.path.endswith(".png")]) == 4


@pytest.mark.filterwarnings("ignore")
def test_an_entry_that_is_refused_does_not_hold_up_the_others(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    log, said = SearchLogger(Location.of(tmp_path / "other"), "b-search", {}), []
    log.open()
    log_queue = LogQueue(said.append)
    log_queue.add(lambda: log.start_trial("trial-1", "pix2pix", {}))
    log_queue.add(lambda: log.log_evaluation("trial-1", 10, {"no\nname": 1.0}))
    log_queue.add(lambda: log.log_evaluation("trial-1", 20, {"fid": 1.0}))

    assert log_queue.close(60) == 0
    assert log.logged_images("trial-1", "fid") == {20}
    assert len(said) == 1
    assert "refuses an entry" in said[0]


@pytest.mark.filterwarnings("ignore")
def test_the_floors_are_logged_with_the_search(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    asked = {"data": tmp_path, "output": tmp_path / "search", "features": "efficientnet-lite0"}
    plan = plan_from_flags(asked, resume=False)
    plan.output.make_folder()
    callback = SearchCallback(plan, "trials")
    callback.setup()
    trial = Trial("slot", trial_id="trial-1", config={"architecture": "pix2pix"}, stub=True)
    callback.on_trial_start(0, [trial], trial)
    baselines = {"inverted_grey": {METRIC: 9.5, "l1": 4.0}, "train": {METRIC: 2.5, "images": 7.0}}
    result = {"images": 10, METRIC: 8.0, "beside": {}, "losses": {}, "grid": None}
    result |= {"seconds": 1.0, "images_per_second": 9.0, "baselines": baselines}
    callback.on_trial_result(0, [trial], trial, result)
    assert callback.log_queue.close(60) == 0
    callback.progress.close()

    parent = callback.log.client.get_run(callback.log.parent.info.run_id)
    told = {
        f"baseline_{name}/{key}": v
        for name, baseline in baselines.items()
        for key, v in baseline.items()
    }
    assert parent.data.metrics == told


def test_a_server_that_went_away_is_told_of_without_its_password(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:p@geheim@127.0.0.1:{free_port()}")
    said = []
    log_queue = LogQueue(said.append)
    log_queue.add(SearchLogger(Location.of(tmp_path), "c-search", {}).open)
    assert log_queue.close(5) == 1
    assert "MLflow does not answer" in said[0]
    assert "127.0.0.1" in said[0]
    assert "geheim" not in said[0]


def test_a_server_that_is_not_there_is_one_sentence_without_its_password(monkeypatch, tmp_path):
    address = f"http://me:geheim@127.0.0.1:{free_port()}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(SearchError, match="No tracking server answers at http://127") as caught:
        require_store(Location.of(tmp_path), timeout_s=0)
    assert "geheim" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "store",
    [
        "ftp://me:geheim@there/runs",
        "http://127.0.0.1:{port}/no-mlflow",
        "postgresql+nodriver://me:geheim@127.0.0.1/runs",
    ],
)
def test_a_store_that_refuses_is_one_sentence_without_its_password(
    server, monkeypatch, tmp_path, store
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.format(port=server.port))
    with pytest.raises(SearchError, match=r"cannot keep runs at .* mend MLFLOW_TRACK") as caught:
        require_store(Location.of(tmp_path), timeout_s=0)
    assert "geheim" not in str(caught.value)
