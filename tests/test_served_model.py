"""The best generator as a registered model of MLflow, served over HTTP."""

import base64
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from mlflow.models import Model
from mlflow.tracking import MlflowClient
from object_store import free_port
from PIL import Image
from summaries import evaluate, record_of
from training_helpers import plan_of, trial_of

from thermal_search.cli import main
from thermal_search.storage import Location
from thermal_search.tracking.runs import SearchLogger
from thermal_search.tracking.store import prepare_database
from thermal_search.translation.command import translate
from thermal_search.tuning.slots.messages import TrialConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's database layer and pandas
NAME = "rgb-to-thermal"


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """A search with one trained trial, whose generator is exported and registered."""
    output = tmp_path_factory.mktemp("served") / "search"
    record = record_of(output, trials=1, images=8)
    record.add(0, TrialConfig("stylegan", {}))
    folder = Location.of(output / "trials" / "00000")
    list(trial_of(plan_of(folder, "stylegan", images=8, evaluate_every=8)).evaluations())
    evaluate(record, "00000", 5.0)
    record.end("00000", "completed", "")
    log = SearchLogger(record.output, record.plan.id, {})
    log.open()
    log.start_trial("00000", "stylegan", {"latent_size": 8})
    log.log_evaluation("00000", 8, {"fid": 5.0})
    log.end_trial("00000", "completed", "")
    main(["export", str(output), "--register", NAME])
    return output


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of two RGB images that are not square."""
    folder = tmp_path_factory.mktemp("rgb")
    random = np.random.default_rng(0)
    for name in ("a.png", "b.png"):
        small = Image.fromarray(random.integers(0, 256, (5, 7, 3), np.uint8))
        small.resize((56, 40), Image.Resampling.BICUBIC).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def translated(search, images, tmp_path_factory):
    """What `thermal-search translate` makes of them."""
    target = tmp_path_factory.mktemp("thermal")
    translate(search / "generator", images, target)
    return [np.asarray(Image.open(target / name)) for name in ("a.png", "b.png")]


@pytest.fixture(scope="module")
def address(search):
    """`mlflow models serve`, as the printed command starts it, on a free port."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["--model-uri", f"models:/{NAME}@champion", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{search}/mlflow.db"}
    log = search / "serve.log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env=environment, start_new_session=True
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
    while True:
        try:
            urllib.request.urlopen(f"{url}/ping", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
    yield f"{url}/invocations"
    os.killpg(server.pid, signal.SIGTERM)
    server.wait(30)


def ask(address, rows, **params):
    content = json.dumps({"dataframe_records": rows, "params": params}).encode()
    request = urllib.request.Request(
        address, data=content, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return [row["thermal"] for row in json.load(answer)["predictions"]]


def assert_equal(image, expected):
    """But for one gray level, of values halfway between two."""
    assert np.abs(np.array(image, int) - expected).max() <= 1


def encoded(path):
    return base64.b64encode(path.read_bytes()).decode()


def test_served_model_answers_an_image_as_translate_does(address, images, translated):
    rows = [{"image": encoded(images / name)} for name in ("a.png", "b.png")]
    answers = [np.asarray(Image.open(io.BytesIO(base64.b64decode(t)))) for t in ask(address, rows)]

    assert [answer.shape for answer in answers] == [(40, 56), (40, 56)]
    for answer, expected in zip(answers, translated, strict=True):
        assert_equal(answer, expected)


def test_served_model_answers_numbers_with_numbers(address, images, translated):
    rows = [
        {"image": np.asarray(Image.open(images / name)).tolist()} for name in ("a.png", "b.png")
    ]
    answers = ask(address, rows)

    assert_equal(answers[0], translated[0])
    assert_equal(answers[1], translated[1])
    other = np.array(ask(address, rows, seed=1)[0])
    assert not np.array_equal(other, translated[0])  # another latent


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ("no image", "must be an image file in base64 or"),
        ([[1, 2], [3, 4]], r"must be [height, width, 3] numbers, but is [2, 2]"),
        ([[[1, 2, 300]]], "must hold whole numbers from 0 to 255"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(address, image, sentence):
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(address, [{"image": image}])
    with refused.value as answer:
        assert answer.code == 400
        assert sentence in json.load(answer)["message"]


def test_registered_version_is_the_champion_of_its_trial(search):
    client = MlflowClient(f"sqlite:///{search}/mlflow.db")
    version = client.get_model_version_by_alias(NAME, "champion")
    run = client.get_run(version.run_id)
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)

    assert version.version in (1, "1")
    assert run.data.tags["thermal_search.trial"] == "00000"
    assert version.source == model.artifact_location
    assert run.info.status == "FINISHED"
    info = Model.load(model.artifact_location.removeprefix("file://"))
    assert info.signature.inputs.input_names() == ["image"]
    assert info.signature.params.params[0].name == "seed"
    assert info.saved_input_example_info
    files = [path.name for path in (search / "mlflow-artifacts").rglob("*")]
    assert {"generator.safetensors", "served_model.py"} <= set(files)
    assert not [name for name in files if name.endswith(".pkl")]
    assert "MLFLOW_TRACKING_URI" not in os.environ


def test_moved_search_keeps_its_model(search, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(search, moved)
    prepare_database(Location.of(moved), pytest.fail)
    client = MlflowClient(f"sqlite:///{moved}/mlflow.db")
    version = client.get_model_version_by_alias(NAME, "champion")

    (output,) = client.get_run(version.run_id).outputs.model_outputs
    place = client.get_logged_model(output.model_id).artifact_location
    assert place.startswith(moved.as_uri())
    assert client.get_model_version_download_uri(NAME, version.version).startswith(moved.as_uri())


def refusal(*arguments):
    """The sentence of a command that must fail."""
    with pytest.raises(SystemExit) as refused:
        main([*map(str, arguments)])
    return str(refused.value.code)


@pytest.mark.parametrize("name", ["", "a/b", "a@b", " "])
def test_what_is_no_name_of_a_model_is_refused_before_the_export(search, name, tmp_path):
    sentence = refusal("export", search, "--to", tmp_path / "new", "--register", name)

    assert "must name a model without" in sentence
    assert not (tmp_path / "new").exists()


def test_search_without_runs_is_one_sentence(tmp_path):
    record = record_of(tmp_path, trials=1, images=8)
    record.add(0, TrialConfig("pix2pix", {}))
    folder = Location.of(tmp_path / "trials" / "00000")
    list(trial_of(plan_of(folder, images=8, evaluate_every=8)).evaluations())
    evaluate(record, "00000", 5.0)

    sentence = refusal("export", tmp_path, "--register", NAME)
    assert "has no run of trial 00000: resume the search" in sentence
