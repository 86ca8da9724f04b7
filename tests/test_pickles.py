"""No file of a search or an export runs code: a pickle in the place of one file and its backup, and
then what reads that file."""

import contextlib
import os
import pickle
import shutil

import pytest
import torch
from generator_helpers import config_of, save_untrained
from summaries import record_of, run_trial, started_plan

from thermal_search import checkpoint, export, generator
from thermal_search.documents import backup_of
from thermal_search.errors import SearchError
from thermal_search.report.page import write_report
from thermal_search.storage import Location
from thermal_search.tracking.store import prepare_database
from thermal_search.tuning.budgets import Calibration
from thermal_search.tuning.learned import Learned, load_learned
from thermal_search.tuning.ownership import Claim, require_free
from thermal_search.tuning.pace import calibration_of
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.shared_study import open_storage
from thermal_search.tuning.starting_point import starting_point
from thermal_search.tuning.summary import TimeFile

TRIAL = "trials/00000"
STATES = (f"{TRIAL}/state-00000010", f"{TRIAL}/state-00000020")


class Payload:
    """Code that runs when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a search with a file of each kind."""
    folder = tmp_path_factory.mktemp("pickles") / "whole"
    record = record_of(folder, hours=1.0, trials=1, finalists=1, seeds=1)
    baselines = {"inverted_grey": {"fid": 60.0}}
    best = run_trial(record, 4.0, 3.0, baselines=baselines)
    record.add_retraining(best, 1)
    record.save_time(TimeFile(seconds=10.0))
    record.flush()
    learned = Learned(search="earlier", trials=[], first=[])
    learned.write_with_backup(record.output / "learned.json")
    calibration = Calibration(size=32, compute=9.0, device="CPU", speeds={}, failures={})
    calibration.write_with_backup(record.output / "calibration.json")
    record.plan.replace(is_calibrated=True, learned_digest=learned.digest).save()
    for name in STATES:
        state = Location.of(folder) / name
        state.make_subfolder()
        checkpoint.save({"step": 1, "weights": torch.zeros(2)}, state / "shared.pt")
        checkpoint.commit(state, ["shared.pt"])
    save_untrained(folder / "generator")
    names = checkpoint.GeneratorDescription.model_fields
    config = config_of("pix2pix")
    description = checkpoint.GeneratorDescription(**{n: getattr(config, n) for n in names})
    weights = generator.load(folder / "generator").generator.state_dict()
    checkpoint.save_generator(description, weights, Location.of(folder) / TRIAL)
    return folder


@pytest.fixture
def output(whole, tmp_path):
    return Location.of(shutil.copytree(whole, tmp_path / "output"))


@pytest.fixture(params=["pickle", "torch"])
def write(request, tmp_path):
    """Writes a file that runs code if it is unpickled, and says afterwards that none ran."""
    marker = tmp_path / "marker"

    def write_pickle(path):
        if request.param == "pickle":
            path.write_bytes(pickle.dumps(Payload(marker)))
        else:
            torch.save(Payload(marker), path.local)

    yield write_pickle
    assert not marker.exists()
    write_pickle(Location.of(tmp_path / "proof"))
    with contextlib.suppress(Exception):
        pickle.loads((tmp_path / "proof").read_bytes())
    with contextlib.suppress(Exception):
        torch.load(tmp_path / "proof", weights_only=False)
    assert marker.exists()  # the payload would have run


def read_calibration(output):
    calibration_of(SearchPlan.load(output), 32, None, True, print)


def read_start(output):
    plan = SearchPlan.load(output)
    starting_point(plan.replace(start_from=output / "generator"))


READERS = {
    "search.json": SearchRecord.load,
    f"{TRIAL}/trial.json": SearchRecord.load,
    "retrainings/00000-seed-1/trial.json": SearchRecord.load,
    "baselines.json": SearchRecord.load,
    "time.json": SearchRecord.load,
    "calibration.json": read_calibration,
    "learned.json": lambda output: load_learned(SearchPlan.load(output)),
    "owner-0.json": require_free,
    f"{TRIAL}/generator.pt": export.export,
    "generator/config.json": lambda output: generator.load(output / "generator"),
    "generator/generator.safetensors": lambda output: generator.load(output / "generator"),
}


@pytest.mark.parametrize("name", READERS)
def test_pickle_is_refused_in_one_sentence(output, write, name):
    if name == "owner-0.json":
        ended = Claim.new().model_copy(update={"renewed": 0.0})
        (output / name).write_text(ended.model_dump_json())
    READERS[name](output)
    write(output / name)
    if name.endswith(".json"):
        write(backup_of(output / name))
    with pytest.raises(SearchError) as refused:
        READERS[name](output)

    assert str(output / name) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["config.json", "generator.safetensors"])
def test_pickle_in_a_starting_point_is_refused(output, write, name):
    read_start(output)
    write(output / "generator" / name)
    with pytest.raises(SearchError, match=name):
        read_start(output)


@pytest.mark.parametrize("name", ["shared.pt", "commit.json"])
def test_state_before_a_pickle_is_used(output, write, name):
    older, newer = (output / state for state in STATES)
    assert checkpoint.latest(output / TRIAL) == newer
    write(newer / name)

    assert checkpoint.latest(output / TRIAL) == older
    assert checkpoint.state_after(output / TRIAL, 20) is None


def test_pickle_as_the_journal_is_set_aside(output, write):
    write(output / "optuna-journal.log")
    assert open_storage(output, None).get_all_studies() == []


def test_pickle_as_the_database_is_set_aside(output, write):
    warnings = []
    write(output / "mlflow.db")
    prepare_database(output, warnings.append)
    assert "is damaged" in warnings[0]


def test_pickles_that_nothing_reads_cost_nothing(output, write):
    """summary.json, which is written again, and what Ray Tune and Optuna would look for."""
    write(output / "summary.json")
    for name in ("tuner.pkl", "trainable.pkl", "searcher-state.pkl", "search_gen_state.json"):
        for folder in (output, output / "tune", output / "trials", output / "ray"):
            (folder.local).mkdir(exist_ok=True)
            write(folder / name)
    record = SearchRecord.load(output)
    record.flush()
    write_report(output, None)

    assert (output / "summary.json").read_text().startswith("{")


@pytest.mark.parametrize("content", [b"", b'{"version": 1, "sec', None])
@pytest.mark.parametrize("name", ["time.json", "calibration.json"])
def test_torn_empty_or_missing_file_is_read_from_its_backup(output, name, content):
    def damage(path):
        path.local.unlink()
        if content is not None:
            path.write_bytes(content)

    damage(output / name)
    if name == "time.json":
        assert SearchRecord.load(output).time.seconds == 10.0
    else:
        assert calibration_of(SearchPlan.load(output), 32, None, True, print).compute == 9.0
    damage(backup_of(output / name))
    if name == "time.json" and content is None:  # all of the hours again
        assert SearchRecord.load(output).time.seconds == 0.0
        return
    fault = "is missing: restore" if content is None else "is damaged"
    with pytest.raises(SearchError, match=f"{name} {fault}"):
        READERS[name](output)


def test_calibration_of_a_search_without_one_is_not_read(tmp_path):
    plan = started_plan(tmp_path)
    (tmp_path / "calibration.json").write_text("torn")
    assert calibration_of(plan, 32, None, True, print) is None
