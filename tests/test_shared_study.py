"""The study that optuna-dashboard opens: written from the record, on a disk and in PostgreSQL."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from summaries import evaluate, record_of, run_trial

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.shared_study import JOURNAL, SharedStudy, open_storage, study_name
from thermal_search.tuning.slots.messages import TrialConfig

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def share(record, storage):
    """Writes the record as a search does that resumes, and ends."""
    SharedStudy(record, storage, pytest.fail).close(60.0)


def written(record, storage):
    return optuna.load_study(study_name=study_name(record), storage=storage)


def test_study_follows_the_record_while_the_search_runs(tmp_path):
    record = record_of(tmp_path)
    shared = SharedStudy(record, open_storage(record.output, None), pytest.fail)
    for values, status in [((9.0, 7.0), "completed"), ((8.0,), "stopped"), ((5.0,), "failed")]:
        trial = run_trial(record, *values, status="running")
        shared.update(trial)
        record.end(trial.id, status, "out of memory")
        shared.update(trial)
    running = run_trial(record, 6.0, status="running")
    shared.update(running)
    evaluate(record, running.id, 5.5)  # after it was shared
    shared.close(60.0)

    # As optuna-dashboard opens it, with nothing of this project.
    study = written(record, JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL))))
    states = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING]
    assert [trial.state for trial in study.trials] == states
    assert study.trials[0].value == 7.0
    assert study.trials[0].params["architecture"] == "pix2pix"
    assert study.trials[0].intermediate_values == {1: 9.0, 2: 7.0}
    assert study.trials[2].user_attrs == {"id": "00002", "reason": "out of memory"}
    assert study.trials[3].intermediate_values == {1: 6.0}
    assert study.metric_names == ["fid"]


def test_resumed_search_brings_the_study_up_to_date_once(tmp_path):
    record = record_of(tmp_path)
    running = run_trial(record, 9.0, status="running")
    share(record, open_storage(record.output, None))
    evaluate(record, running.id, 3.0)
    record.end(running.id, "completed", "")
    run_trial(record, 4.0)
    for _ in range(2):
        share(SearchRecord.load(tmp_path), open_storage(record.output, None))

    trials = written(record, open_storage(record.output, None)).trials
    assert [(trial.value, trial.state) for trial in trials] == [
        (3.0, TrialState.COMPLETE), (4.0, TrialState.COMPLETE),
    ]  # fmt: skip


def test_trial_that_went_on_with_more_hours_is_written_anew(tmp_path):
    record = record_of(tmp_path)
    stopped = run_trial(record, 9.0, status="stopped")
    share(record, open_storage(record.output, None))
    evaluate(record, stopped.id, 3.0)
    record.end(stopped.id, "completed", "")
    run_trial(record, 4.0)
    for _ in range(2):
        share(SearchRecord.load(tmp_path), open_storage(record.output, None))

    study = written(record, open_storage(record.output, None))
    assert [(trial.user_attrs["id"], trial.value, trial.state) for trial in study.trials] == [
        ("00000", 9.0, TrialState.PRUNED),
        ("00000", 3.0, TrialState.COMPLETE),
        ("00001", 4.0, TrialState.COMPLETE),
    ]  # fmt: skip
    assert study.trials[1].intermediate_values == {1: 9.0, 2: 3.0}
    assert study.best_value == 3.0


def test_trial_that_ends_without_an_evaluation_has_no_value(tmp_path):
    record = record_of(tmp_path)
    run_trial(record, 9.0)
    run_trial(record, status="stopped")  # by the clock
    for _ in range(2):
        share(SearchRecord.load(tmp_path), open_storage(record.output, None))

    study = written(record, open_storage(record.output, None))
    assert [trial.value for trial in study.trials] == [9.0, None]
    assert len(study.trials_dataframe()) == 2


def test_trial_outside_of_the_search_space_is_written_once(tmp_path):
    record = record_of(tmp_path)
    trial = record.add(0, TrialConfig("pix2pix", {"generator_lr": 1e9}))
    record.start(trial.id)
    evaluate(record, trial.id, 9.0, 8.0)
    record.end(trial.id, "completed", "")
    for _ in range(3):
        share(SearchRecord.load(tmp_path), open_storage(record.output, None))

    (found,) = written(record, open_storage(record.output, None)).trials
    assert found.state is TrialState.FAIL


def test_two_objectives_are_both_in_the_study(tmp_path):
    record = record_of(tmp_path, objective="pareto:fid,l1")
    run_trial(record, {"fid": 1.0, "l1": 2.0})
    share(record, open_storage(record.output, None))

    (trial,) = written(record, open_storage(record.output, None)).trials
    assert trial.values == [1.0, 2.0]


@pytest.mark.parametrize("content", [b"torn", b'{"op_code": 0', bytes(range(64))])
def test_damaged_journal_is_set_aside_and_written_again(tmp_path, content):
    record = record_of(tmp_path)
    run_trial(record, 4.0)
    (tmp_path / JOURNAL).write_bytes(content + b"\n" + content)
    share(record, open_storage(record.output, None))

    assert [t.value for t in written(record, open_storage(record.output, None)).trials] == [4.0]
    (aside,) = tmp_path.glob(f"{JOURNAL}.damaged-*")
    assert aside.read_bytes().startswith(content)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["link", "link of a moved folder", "empty", "torn"])
def test_lock_that_a_killed_search_has_left_is_removed(tmp_path, kind):
    record = record_of(tmp_path)
    run_trial(record, 4.0)
    lock = tmp_path / f"{JOURNAL}.lock"
    if kind.startswith("link"):
        (tmp_path / JOURNAL).touch()
        lock.symlink_to(tmp_path / ("moved" if "moved" in kind else "") / JOURNAL)
    else:
        lock.write_bytes(b"to" if kind == "torn" else b"")
    if "moved" not in kind:
        hour_ago = time.time() - 3600
        os.utime(lock, (hour_ago, hour_ago), follow_symlinks=False)
    began = time.monotonic()
    share(record, open_storage(record.output, None))

    assert time.monotonic() - began < 10
    assert [t.value for t in written(record, open_storage(record.output, None)).trials] == [4.0]


def test_storage_that_fails_costs_one_warning(tmp_path):
    record, warnings = record_of(tmp_path), []
    run_trial(record, 4.0)
    storage = open_storage(record.output, f"sqlite:///{tmp_path}/study.db")
    shared = SharedStudy(record, storage, warnings.append)
    shared.entries.put(lambda: storage.engine.dispose())
    shared.entries.put(lambda: (tmp_path / "study.db").write_bytes(b"no database" * 1000))
    for _ in range(3):
        shared.update(run_trial(record, 4.0))
    shared.close(60.0)

    (warning,) = warnings
    assert "cannot be written" in warning


def test_lock_of_a_killed_search_does_not_stop_one_that_was_moved(tmp_path):
    record = record_of(tmp_path)
    run_trial(record, 4.0)
    (tmp_path / f"{JOURNAL}.lock").symlink_to("/where/the/search/was/before")
    share(record, open_storage(record.output, None))

    assert [t.value for t in written(record, open_storage(record.output, None)).trials] == [4.0]


def test_storage_that_never_answers_costs_one_warning_at_the_end(tmp_path):
    record, warnings = record_of(tmp_path), []
    run_trial(record, 4.0)
    storage = open_storage(record.output, None)
    lock = tmp_path / f"{JOURNAL}.lock"
    lock.symlink_to("/nowhere")  # for which Optuna waits
    shared = SharedStudy(record, storage, warnings.append)
    shared.close(0.2)
    lock.unlink()
    shared.thread.join()

    (warning,) = warnings
    assert "did not take them within 0 s" in warning


@pytest.mark.parametrize("url", ["nonsense", "nodriver://me:geheim@nowhere/optuna"])
def test_wrong_storage_is_one_sentence_without_its_password(tmp_path, url):
    with pytest.raises(SearchError, match="--storage must be a database that Optuna") as caught:
        open_storage(Location.of(tmp_path), url)
    assert "geheim" not in str(caught.value)
    assert open_storage(Location.of("s3://bucket/search"), None) is None


@pytest.fixture
def postgresql(tmp_path_factory):
    """The URL of a PostgreSQL that listens on a socket of this machine only."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not versions or os.getuid() != 0:
        pytest.skip("no PostgreSQL here (Debian's package postgresql), or not root")
    folder = tmp_path_factory.mktemp("postgresql")
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)
    shutil.chown(folder, "postgres", "postgres")
    run = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]

    def call(program, *arguments):
        subprocess.run(
            [*run, versions[-1] / program, *arguments],
            check=True, cwd=folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    call("initdb", "--auth", "trust", "--username", "postgres", "data")
    call("pg_ctl", "-D", "data", "-l", "log", "-w", "-o", f"-k {folder} -h '' -F", "start")
    yield f"postgresql+psycopg2://postgres@/postgres?host={folder}"
    call("pg_ctl", "-D", "data", "-m", "immediate", "stop")


def test_study_in_postgresql_is_shared_by_two_searches(tmp_path, postgresql):
    first, second = record_of(tmp_path / "first"), record_of(tmp_path / "second")
    run_trial(first, 4.0)
    run_trial(second, 5.0)
    for record in (first, second, first):
        share(record, open_storage(record.output, postgresql))

    assert [t.value for t in written(first, postgresql).trials] == [4.0]
    assert [t.value for t in written(second, postgresql).trials] == [5.0]
