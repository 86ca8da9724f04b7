"""Whole searches, killed and stopped. Their slots report learning curves instead of training; Ray,
Ray Tune, MLflow and the files are real. `pytest -m faults` kills one forty times."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from simulated_search import STATE

from thermal_search.storage import Location
from thermal_search.tracking.runs import TRIAL_TAG
from thermal_search.tracking.store import store_of

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
SIZE = ("4", "30", "10")
"""Trials, images of each, images between evaluations."""


def start(output, *kill_at, **environment):
    return subprocess.Popen(
        [sys.executable, "simulated_search.py", str(output), *SIZE, *map(str, kill_at)],
        cwd=Path(__file__).parent,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0):
    """Waits for the end; returns what was printed."""
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == code, printed
    return printed


def results(output):
    return json.loads((output / "summary.json").read_text())


def assert_mlflow_has_each_trial_once(output):
    client = MlflowClient(store_of(Location.of(output)))
    (experiment,) = [e for e in client.search_experiments() if e.name == "thermal-search"]
    runs = client.search_runs([experiment.experiment_id])
    summary = results(output)
    trials = {trial["id"]: trial for trial in [*summary["trials"], *summary["retrainings"]]}
    logged = [run.data.tags[TRIAL_TAG] for run in runs if TRIAL_TAG in run.data.tags]
    assert sorted(logged) == sorted(trials)
    assert len(runs) == len(trials) + 1
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if id := run.data.tags.get(TRIAL_TAG):
            points = client.get_metric_history(run.info.run_id, "fid")
            steps = [point.step for point in points]
            assert steps == [item["images"] for item in trials[id]["history"]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The results of a search that nothing disturbs, and the number of its writes."""
    output = tmp_path_factory.mktemp("undisturbed") / "output"
    printed = finish(start(output))
    assert_mlflow_has_each_trial_once(output)
    summary = results(output)
    assert len(summary["trials"]) == 4
    assert summary["retrainings"]
    assert summary["final_ranking"]
    return summary, int(re.search(r"steps (\d+)", printed)[1])


def kill_and_resume(output, undisturbed, *kills):
    for step in kills:
        process = start(output, step)
        printed, _ = process.communicate(timeout=240)
        assert process.returncode in (0, -signal.SIGKILL), printed
    finish(start(output))
    assert results(output) == undisturbed
    assert_mlflow_has_each_trial_once(output)


@pytest.mark.faults
def test_killed_search_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    summary, steps = undisturbed
    kill_and_resume(tmp_path / "output", summary, steps // 3)


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_search_killed_at_forty_moments_ends_as_an_undisturbed_one(undisturbed, tmp_path):
    summary, steps = undisturbed
    moments = random.Random(0).sample(range(1, steps), 40)
    for number, step in enumerate(moments):
        kills = (step, step // 2 + 1) if number % 5 == 0 else (step,)
        kill_and_resume(tmp_path / str(step), summary, *kills)
        print(f"killed at {kills} of {steps}: as undisturbed", flush=True)


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.faults), (signal.SIGTERM, 143)],
)
def test_signal_stops_the_search_tidily(tmp_path, number, code):
    output = tmp_path / "output"
    process = start(output, SLOW_S="0.5")
    wait_for_evaluation(process, output)
    process.send_signal(number)
    printed = finish(process, code)

    assert f"Stopped by {signal.Signals(number).name}" in printed
    assert "Traceback" not in printed
    (running,) = [t for t in results(output)["trials"] if t["status"] == "interrupted"]
    assert running["reason"] == f"the search received {signal.Signals(number).name}"
    client = MlflowClient(store_of(Location.of(output)))
    (experiment,) = [e for e in client.search_experiments() if e.name == "thermal-search"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.status for run in runs} <= {"KILLED", "FINISHED"}
    assert "KILLED" in {run.info.status for run in runs if TRIAL_TAG not in run.data.tags}


def wait_for_evaluation(process, output):
    """Waits until a trial of the search in `output` is in training."""
    deadline = time.monotonic() + 120
    while not any((output / "trials").glob(f"*/{STATE}")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_first_evaluation_that_comes_too_late_does_not_outlast_the_hours(tmp_path):
    output = tmp_path / "output"
    process = start(output, SLOW_S="1000", HOURS="0.01")
    printed = finish(process)

    (trial,) = results(output)["trials"]
    assert (trial["status"], trial["images"]) == ("stopped", 0)
    assert "stopped: the time of the search was over" in printed
    assert "MLflow" not in printed
    finish(start(output, HOURS="1"))
    summary = results(output)
    assert summary["trials"][0]["status"] == "completed"
    assert len(summary["trials"]) == 4
    assert summary["final_ranking"]


def test_workers_that_cannot_start_are_shown_and_stop_the_search(tmp_path):
    output = tmp_path / "output"
    process = start(output, CANNOT_START="no such weights")
    printed = finish(process, 1)

    assert "could not start, and others try again: no such weights" in printed
    assert "has stopped, because RuntimeError: no such weights: remove the cause" in printed
    assert "Traceback" not in printed
    assert [trial["status"] for trial in results(output)["trials"]] == ["interrupted"]


@pytest.fixture
def disk(tmp_path):
    """A disk of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], capture_output=True)


def test_full_disk_stops_the_search_with_a_sentence_and_it_resumes(disk):
    output, filler = disk / "output", disk / "filler"
    process = start(output, SLOW_S="0.3")
    wait_for_evaluation(process, output)
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    printed = finish(process, 1)

    assert re.search(r"has stopped, because No space left on device .*output", printed)
    assert "Traceback" not in printed
    filler.unlink()
    finish(start(output))
    assert [trial["status"] for trial in results(output)["trials"]].count("interrupted") == 0
    assert_mlflow_has_each_trial_once(output)


@pytest.mark.faults
@pytest.mark.parametrize("files", [0, 1, 2])
def test_disk_that_is_full_at_the_start_stops_the_search_and_the_command_works_again(
    tmp_path, files
):
    output = tmp_path / "output"
    printed = finish(start(output, FULL_AFTER=str(files)), 1)

    is_begun = files > 1  # its claim, then its plan
    assert "No space left on device" in printed
    assert ("continue with" if is_begun else "begin it with the same command") in printed
    assert "Traceback" not in printed
    finish(start(output))
    assert len(results(output)["trials"]) == int(SIZE[0])


ARTIFACTS = "mlflow-artifacts"
"""MLflow makes the folders of a file that it logs, if it was asked to just before."""


def left_in(folder):
    """The names in a folder that should not be there any more."""
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


@pytest.mark.faults
def test_renamed_folder_stops_the_search_with_a_sentence(tmp_path):
    output, renamed = tmp_path / "output", tmp_path / "renamed"
    process = start(output, SLOW_S="0.3")
    wait_for_evaluation(process, output)
    output.rename(renamed)
    stopped = time.monotonic()
    printed = finish(process, 1)

    assert time.monotonic() - stopped < 60
    assert f"{output} is no longer the folder it began in" in printed
    assert "Traceback" not in printed
    assert left_in(output) <= {ARTIFACTS}
    assert (renamed / "search.json").is_file()


@pytest.mark.faults
def test_disk_that_is_gone_stops_the_search_with_a_sentence(disk):
    output = disk / "output"
    process = start(output, SLOW_S="0.3")
    wait_for_evaluation(process, output)
    subprocess.run(["umount", "-l", str(disk)], check=True)
    printed = finish(process, 1)

    assert f"{output} is no longer the folder it began in" in printed
    assert "Traceback" not in printed
    assert left_in(output) <= {ARTIFACTS}


@pytest.mark.faults
def test_killed_raylet_stops_the_search_with_a_sentence(tmp_path):
    output = tmp_path / "output"
    process = start(output, SLOW_S="0.3")
    wait_for_evaluation(process, output)
    (raylet,) = [pid for pid in children(process.pid) if command(pid).endswith("/raylet/raylet")]
    os.kill(raylet, signal.SIGKILL)
    printed = finish(process, 1)

    assert "Ray" in printed
    assert "Traceback" not in printed


def children(pid):
    return map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def command(pid):
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
