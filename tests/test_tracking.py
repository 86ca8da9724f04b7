"""A tracking server that goes away and comes back: nothing is lost, repeated or out of order."""

import json
import os
import socket
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
from summaries import record_of

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.log_queue import LogQueue
from thermal_search.tracking.runs import SearchLogger
from thermal_search.tracking.server import serve_ui
from thermal_search.tracking.store import require_store
from thermal_search.tracking.view import SearchView
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.stopping import SearchStopper

METRIC = "fd_efficientnet_lite0"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real MLflow server that also stores the images, behind a relay that can be closed."""
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
def test_server_that_was_unreachable_gets_everything_once_in_order(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    output = Location.of(tmp_path / "search")
    grid = output / "grid.png"
    with grid.open_output() as file:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, format="png")
    require_store(output)
    log, warnings = SearchLogger(output, "a-search", {"trials": 2}), []
    log.open()
    log_queue = LogQueue(warnings.append)
    log_queue.add(lambda: log.start_trial("trial-1", "pix2pix", {"l1": 100.0}))
    log_queue.add(lambda: log.log_evaluation("trial-1", 10, {"fid": 9.0}, grid))
    assert log_queue.close(60) == 0

    server.close()
    away = LogQueue(warnings.append)
    started = time.monotonic()
    for images in (20, 30, 40):
        away.add(
            lambda images=images: log.log_evaluation("trial-1", images, {"fid": 1.0 / images}, grid)
        )
    away.add(lambda: log.start_trial("trial-2", "wgan", {}))
    away.add(lambda: log.log_evaluation("trial-2", 10, {"fid": 2.0}))
    away.add(lambda: log.end_trial("trial-2", "completed", ""))
    assert time.monotonic() - started < 1, "the search waited for the server"
    assert away.close(2) == 6, "nothing can have been sent"
    assert len(warnings) == 1
    assert "MLflow is unreachable" in warnings[0]

    back = LogQueue(warnings.append)
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
    images = client.list_artifacts(log.runs["trial-1"].info.run_id, "images")
    assert len([p for p in images if p.path.endswith(".png")]) == 4


@pytest.mark.filterwarnings("ignore")
def test_rejected_entry_does_not_block_the_others(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    log, warnings = SearchLogger(Location.of(tmp_path / "other"), "b-search", {}), []
    log.open()
    log_queue = LogQueue(warnings.append)
    log_queue.add(lambda: log.start_trial("trial-1", "pix2pix", {}))
    log_queue.add(lambda: log.log_evaluation("trial-1", 10, {"no\nname": 1.0}))
    log_queue.add(lambda: log.log_evaluation("trial-1", 20, {"fid": 1.0}))

    assert log_queue.close(60) == 0
    assert log.logged_images("trial-1", "fid") == {20}
    assert len(warnings) == 1
    assert "rejects an entry" in warnings[0]


@pytest.mark.filterwarnings("ignore")
def test_baselines_are_logged_to_the_parent_run(server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    record = record_of(tmp_path / "search", features="efficientnet-lite0")
    record.add(0, TrialConfig("pix2pix", {}))
    callback = SearchCallback(record, "trials", SearchStopper("the same command"))
    callback.setup()
    trial = Trial("slot", trial_id="00000", config={}, stub=True)
    callback.on_trial_start(0, [trial], trial)
    baselines = {"inverted_grey": {METRIC: 9.5, "l1": 4.0}, "train": {METRIC: 2.5, "images": 7.0}}
    evaluation = TrialEvaluation(
        images=10, metrics={METRIC: 8.0}, losses={}, seconds=1.0, images_per_second=9.0, grid=None
    )
    report = TrialReport(status="running", evaluation=evaluation, baselines=baselines)
    callback.on_trial_result(0, [trial], trial, {REPORT: report})
    trial.update_last_result({REPORT: report})
    callback.on_trial_complete(0, [trial], trial)
    assert callback.log_queue.close(60) == 0
    callback.progress.close()

    client, run_id = callback.logger.client, callback.logger.parent.info.run_id
    parent = client.get_run(run_id)
    assert parent.data.metrics == {}  # each would be a chart with a single bar
    assert "| inverted grey | 9.5 | 4 |" in parent.data.tags["mlflow.note.content"]
    tags = client.get_run(callback.logger.run_id_of("00000")).data.tags
    assert tags["beats_inverted_grey"] == "true"
    assert tags["better_than_inverted_grey"] == "distance"
    assert "better_than_train" not in tags  # which generates no images
    assert "baselines.json" in [file.path for file in client.list_artifacts(run_id)]


@pytest.mark.filterwarnings("ignore")
def test_ui_of_a_search_on_a_server_prints_its_address_there(server, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.port}")
    view = SearchView("d-search", "", order_by="fid", metrics=["fid"], images="grid")
    log = SearchLogger(Location.of(tmp_path), "d-search", {}, view=view)
    log.open()
    log.start_trial("trial-1", "pix2pix", {})
    log.log_evaluation("trial-1", 10, {"fid": 9.0, "loss/generator/l1": 1.0, "system/a": 2.0})
    serve_ui(log.output, view, host="127.0.0.1", port=1)  # which it does not use
    address = f"http://127.0.0.1:{server.port}/#/experiments/{log.experiment_id}/runs?"
    assert capsys.readouterr().out.startswith(address)

    # The view keeps the groups of metrics, which the second opening does not know.
    tags = log.client.get_experiment(log.experiment_id).tags
    state = json.loads(tags["mlflow.sharedViewState.d-search"])
    names = [section["name"] for section in state["compareRunSections"]]
    assert names == ["Model metrics", "loss/generator", "System metrics"]
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_port_in_use_is_said_before_the_address(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    view = SearchView("e-search", "", order_by="fid", metrics=["fid"], images="grid")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        sentence = rf"127.0.0.1 port {port} \(Address already in use\): pass another --port"
        with pytest.raises(SearchError, match=sentence):
            serve_ui(Location.of(tmp_path), view, host="127.0.0.1", port=port)

    assert capsys.readouterr().out == ""


def test_warning_about_the_server_hides_its_password(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:p@geheim@127.0.0.1:{free_port()}")
    warnings = []
    log_queue = LogQueue(warnings.append)
    log_queue.add(SearchLogger(Location.of(tmp_path), "c-search", {}).open)
    assert log_queue.close(5) == 1
    assert "MLflow is unreachable" in warnings[0]
    assert "127.0.0.1" in warnings[0]
    assert "geheim" not in warnings[0]


def test_missing_server_is_one_sentence_without_its_password(monkeypatch, tmp_path):
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
def test_refusing_store_is_one_sentence_without_its_password(server, monkeypatch, tmp_path, store):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.format(port=server.port))
    with pytest.raises(SearchError, match=r"cannot keep runs at .* fix MLFLOW_TRACK") as caught:
        require_store(Location.of(tmp_path), timeout_s=0)
    assert "geheim" not in str(caught.value)
