"""What remains of a trial that has ended: its record and its generator, but no state that nothing
continues from. No Ray."""

import pytest
import torch
from ray.tune.experiment import Trial
from summaries import evaluate, record_of

from thermal_search import checkpoint
from thermal_search.storage import Location
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.summary import OUT_OF_TIME

pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's libraries


def end(tmp_path, report, *, scheduler="asha", is_out_of_time=False):
    """The names in a trial's folder after Ray Tune said that it is complete, and the record."""
    record = record_of(tmp_path, scheduler=scheduler)
    id = record.add(0, TrialConfig("pix2pix", {})).id
    evaluate(record, id, 9.0, 8.0)
    folder = record.folder(record[id])
    for images in (1, 2):
        state = checkpoint.pending(folder, images)
        state.make_subfolder()
        checkpoint.save({"weights": torch.zeros(2)}, state / "shared.pt")
        checkpoint.commit(state, ["shared.pt"])
    (folder / checkpoint.GENERATOR).write_bytes(b"weights")
    stopper = SearchStopper("the same command")
    callback = SearchCallback(record, "trials", stopper)
    callback.setup()
    callback.progress.begin(id)
    trial = Trial("slot", trial_id=id, config={}, stub=True)
    trial.update_last_result({REPORT: report})
    if is_out_of_time:
        stopper.ended.add(id)
    callback.on_trial_complete(0, [trial], trial)
    assert bool(stopper.reason) == (report.status == "interrupted" and report.stops_search)
    callback.log_queue.close(60)
    callback.progress.close()
    return record[id], {path.name for path in folder.list()}


STATES = {"state-00000001", "state-00000002"}


@pytest.mark.parametrize("status", ["completed", "running"])
def test_states_go_when_a_trial_has_its_budget_or_is_stopped(tmp_path, status):
    trial, names = end(tmp_path, TrialReport(status=status))

    assert trial.status == ("completed" if status == "completed" else "stopped")
    assert not names & STATES
    assert {checkpoint.GENERATOR, "trial.json"} <= names


def test_states_of_a_trial_that_continues_stay(tmp_path):
    trial, names = end(tmp_path / "time", TrialReport(status="running"), is_out_of_time=True)
    assert trial.reason == OUT_OF_TIME
    assert names >= STATES

    trial, names = end(tmp_path / "fault", TrialReport(status="interrupted", reason="no disk"))
    assert trial.status == "interrupted"
    assert names >= STATES


def test_states_that_other_trials_continue_from_stay(tmp_path):
    _, names = end(tmp_path, TrialReport(status="completed"), scheduler="pbt")

    assert names >= STATES


def test_states_that_a_killed_search_has_left_go_when_it_resumes(tmp_path, monkeypatch):
    with monkeypatch.context() as context:
        context.setattr(checkpoint, "remove_all", lambda trial: None)  # killed before it
        end(tmp_path, TrialReport(status="completed"))
    record = SearchRecord.load(tmp_path)
    callback = SearchCallback(record, "trials", SearchStopper("the same command"))
    callback.setup()
    callback.log_queue.close(60)
    callback.progress.close()

    assert not {path.name for path in (tmp_path / "trials" / "00000").iterdir()} & STATES


def test_state_that_cannot_be_removed_does_not_stop_the_search(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Location, "delete", refuse)
    trial, names = end(tmp_path, TrialReport(status="completed"))

    assert trial.status == "completed"
    assert names >= STATES
