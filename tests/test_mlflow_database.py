"""The SQLite file of a search's MLflow runs: moved, copied, damaged, and at odd paths."""

import contextlib
import multiprocessing
import shutil
import socket
import sqlite3
from concurrent.futures import ProcessPoolExecutor

import pytest
from PIL import Image

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.runs import SearchLogger
from thermal_search.tracking.server import serve_ui
from thermal_search.tracking.store import client_of, prepare_database, store_of, tracking_server
from thermal_search.tracking.view import SearchView

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # MLflow's database layer warns of its own affairs


VIEW = SearchView("a-search", "", order_by="fid", metrics=["fid"], images="grid")


def log_trial(output):
    """Logs a trial with an image; returns the run's id."""
    output.make_folder()
    grid = output / "grid.png"
    with grid.open_output() as file:
        Image.new("RGB", (8, 8)).save(file, format="png")
    log = SearchLogger(output, "a-search", {})
    log.open()
    log.start_trial("00000", "pix2pix", {})
    log.log_evaluation("00000", 10, {"fid": 1.0}, grid)
    return log.runs["00000"].info.run_id


def image_names(output, run):
    client = client_of(store_of(output))
    return [file.path for file in client.list_artifacts(run, "images")]


@pytest.mark.parametrize("name", ["plain", "a b", "50%", "no#1", "x&y=z"])
def test_images_are_found_at_any_path(tmp_path, name):
    output = Location.of(tmp_path / name)
    run = log_trial(output)

    assert len(image_names(output, run)) == 2  # the image and its small copy
    assert (tmp_path / name / "mlflow.db").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_path_that_mlflow_cannot_open_is_one_sentence(tmp_path):
    with pytest.raises(SearchError, match="must not hold a question mark"):
        store_of(Location.of(tmp_path / "what?"))


def test_moved_search_shows_its_images_and_a_copy_leaves_the_original(tmp_path):
    original, copy = Location.of(tmp_path / "original"), Location.of(tmp_path / "copy")
    # In a process of its own: MLflow remembers in each where the images of a run are.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        run = other.submit(log_trial, original).result()
    before = sorted(path for path in original.local.rglob("*.png"))
    shutil.copytree(original.local, copy.local)
    prepare_database(copy, pytest.fail)
    assert len(image_names(copy, run)) == 2
    log = SearchLogger(copy, "a-search", {})
    log.open()
    log.log_evaluation("00000", 20, {"fid": 1.0}, copy / "grid.png")

    assert len(image_names(copy, run)) == 4
    assert sorted(path for path in original.local.rglob("*.png")) == before


@pytest.mark.parametrize("damage", [b"no database", None])
def test_damaged_database_is_set_aside(tmp_path, damage):
    output, warnings = Location.of(tmp_path), []
    log_trial(output)
    database = tmp_path / "mlflow.db"
    content = damage or database.read_bytes()[: database.stat().st_size // 2]
    database.write_bytes(content)
    prepare_database(output, warnings.append)

    assert not database.exists()
    (aside,) = tmp_path.glob("mlflow.db.damaged-*")
    assert aside.read_bytes() == content
    assert "is damaged" in warnings[0]


@pytest.mark.parametrize("is_missing", [True, False])
def test_empty_or_missing_database_is_written_again(tmp_path, is_missing):
    output = Location.of(tmp_path)
    if not is_missing:
        (tmp_path / "mlflow.db").touch()
    prepare_database(output, pytest.fail)
    run = log_trial(output)

    assert len(image_names(output, run)) == 2


def test_locked_database_is_left_where_it_is(tmp_path):
    output = Location.of(tmp_path)
    log_trial(output)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        with pytest.raises(SearchError, match=r"mlflow.db cannot be used \(database is locked\)"):
            prepare_database(output, pytest.fail)

    assert [path.name for path in tmp_path.glob("mlflow.db*")] == ["mlflow.db"]
    prepare_database(output, pytest.fail)


def test_empty_tracking_uri_counts_as_unset(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert tracking_server() is None
    assert store_of(Location.of(tmp_path)).startswith("sqlite:///")


def test_port_in_use_is_said_before_the_address(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SearchError, match=rf"port {port} .*in use.*another --port"):
            serve_ui(Location.of(tmp_path), VIEW, host="127.0.0.1", port=port)
    with pytest.raises(SearchError, match="--port must be from 1 to 65535, but is 99999"):
        serve_ui(Location.of(tmp_path), VIEW, host="127.0.0.1", port=99999)
    assert capsys.readouterr().out == ""
