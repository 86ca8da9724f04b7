"""Which trials Ray Tune gets, and when they stop. No Ray processes."""

import errno
from types import SimpleNamespace

import pytest
from ray import tune
from ray.tune.experiment import Experiment
from summaries import record_of, run_trial

from thermal_search.errors import SearchStopped
from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers.asha import ASHA
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.trial_source import (
    TrialSource,
    proposed_trials,
    retrainings,
    stop_other_retrainings,
)

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def source_of(record, trials, slots, stopper=None):
    source = TrialSource(record.plan, trials, slots, stopper or SearchStopper("the same command"))
    source.add_configurations([Experiment("trials", tune.Trainable)])
    return source


def test_no_more_trials_run_than_there_are_slots(tmp_path):
    record = record_of(tmp_path, trials=3)
    source = source_of(record, proposed_trials(record), slots=2)
    first, second = source.next_trial(), source.next_trial()
    assert source.next_trial() is None
    source.on_trial_complete(first.trial_id)
    third = source.next_trial()

    assert [trial.trial_id for trial in (first, second, third)] == ["00000", "00001", "00002"]
    assert not source.is_finished()
    source.on_trial_complete(second.trial_id)
    assert source.next_trial() is None
    assert source.is_finished()


def test_new_trial_that_cannot_be_written_stops_the_search(tmp_path, monkeypatch):
    def full(location, **settings):
        raise OSError(errno.ENOSPC, "No space left on device", str(location))

    record, stopper = record_of(tmp_path, trials=3), SearchStopper("the same command")
    source = source_of(record, proposed_trials(record), 2, stopper)
    monkeypatch.setattr(Location, "open_output", full)

    assert source.next_trial() is None
    assert stopper.stop_all()
    with pytest.raises(SearchStopped, match=r"because No space left on device .*the same command"):
        stopper.raise_reason()


def test_unfinished_trials_continue_under_their_own_id(tmp_path):
    record = record_of(tmp_path, trials=4)
    run_trial(record, 5.0)
    interrupted = run_trial(record, 4.0, status="interrupted")
    run_trial(record, 3.0, status="stopped")
    source = source_of(record, proposed_trials(SearchRecord.load(tmp_path)), slots=9)
    again, new = source.next_trial(), source.next_trial()

    assert (again.trial_id, new.trial_id) == (interrupted.id, "00003")
    assert TrialConfig.of(again.config).parameters == interrupted.parameters
    assert source.next_trial() is None


def test_every_finalist_is_retrained_with_every_seed(tmp_path):
    record = record_of(tmp_path, trials=3, finalists=2, seeds=2, seed=10)
    for value in (3.0, 1.0, 2.0):
        run_trial(record, value)
    record.add_retraining(record.trials["00001"], 11)
    source = source_of(record, retrainings(record), slots=9)
    trials = [source.next_trial() for _ in range(4)]

    ids = ["00001-seed-11", "00002-seed-11", "00001-seed-12", "00002-seed-12"]
    assert [trial.trial_id for trial in trials] == ids
    assert [TrialConfig.of(trial.config).seed for trial in trials] == [11, 11, 12, 12]
    assert source.next_trial() is None


def test_retraining_of_a_former_finalist_stops(tmp_path):
    record = record_of(tmp_path, trials=2, finalists=1, seeds=1)
    former = run_trial(record, 3.0)
    record.add_retraining(former, 1)
    run_trial(record, 1.0)
    stop_other_retrainings(record)

    (trial,) = retrainings(SearchRecord.load(tmp_path))
    assert trial.id == "00001-seed-1"
    assert record.retrainings["00000-seed-1"].status == "stopped"


def decide(scheduler, id, value):
    """The scheduler's decision on a trial's first evaluation."""
    if id not in scheduler.record.trials:
        scheduler.record.add(int(id), TrialConfig("pix2pix", {}))
    trial = SimpleNamespace(trial_id=id, config={"architecture": "pix2pix"})
    scheduler.on_trial_add(None, trial)
    evaluation = TrialEvaluation(
        images=1,
        metrics={"fid": value},
        losses={},
        seconds=1.0,
        images_per_second=1.0,
        grid=None,
    )
    report = TrialReport(status="running", evaluation=evaluation)
    result = {"status": "running", "images": 1, REPORT: report}
    return scheduler.on_trial_result(None, trial, result)


def test_resumed_trial_competes_with_those_before_the_interruption(tmp_path):
    record = record_of(tmp_path, images=9, evaluate_every=1, reduction=3.0)
    for value in (1.0, 2.0, 3.0):
        run_trial(record, value)

    assert decide(ASHA(record), "00003", 2.5) == "STOP"
    empty = record_of(tmp_path / "empty")
    assert decide(ASHA(empty), "00000", 2.5) == "CONTINUE"


def test_last_evaluation_before_an_interruption_is_decided_again(tmp_path):
    """The search was killed after the evaluation was recorded and before its trial stopped."""
    record = record_of(tmp_path, images=9, evaluate_every=1, reduction=3.0)
    for value in (1.0, 2.0, 3.0):
        run_trial(record, value)
    run_trial(record, 9.0, status="running")

    assert decide(ASHA(record), "00003", 9.0) == "STOP"
