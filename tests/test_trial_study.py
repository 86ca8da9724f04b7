"""What a sampler knows of the trials of a search. No Ray."""

from optuna.samplers import RandomSampler
from optuna.trial import TrialState
from summaries import record_of, run_trial

from thermal_search.tuning.space import ConditionalSpace
from thermal_search.tuning.trial_study import TrialStudy


def study_of(record, *architectures):
    """The study of some architectures, of all if none is named, as the record is now."""
    space = ConditionalSpace(architectures) if architectures else record.plan.search_space()
    study = TrialStudy(record, [], space.flatten)
    study.update()
    return study


def test_stopped_trial_is_pruned_for_optuna(tmp_path):
    record = record_of(tmp_path)
    run_trial(record, 9.0, 7.0, 8.0)
    run_trial(record, 2.0, status="stopped")
    run_trial(record, 5.0, 4.0, status="stopped")
    run_trial(record, 5.0, status="diverged")
    run_trial(record, 5.0, status="interrupted")
    study = study_of(record).study
    whole, lucky, later, diverged, interrupted = study.trials

    assert [t.state for t in (whole, lucky, later)] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED,
    ]  # fmt: skip
    assert study.best_trial == whole
    assert lucky.intermediate_values == {1: 2.0}
    assert later.intermediate_values == {1: 5.0, 2: 4.0}
    # A large objective and an end: Optuna avoids the point and waits for nothing.
    assert (diverged.state, diverged.value) == (TrialState.COMPLETE, 1e6)
    assert interrupted.state == TrialState.RUNNING  # it will continue


def test_study_of_one_architecture_has_its_trials_alone(tmp_path):
    record = record_of(tmp_path, architectures=("pix2pix", "cyclegan"))
    for architecture in ("pix2pix", "cyclegan", "pix2pix"):
        run_trial(record, 9.0, architecture=architecture)

    assert len(study_of(record).study.trials) == 3
    assert len(study_of(record, "pix2pix").study.trials) == 2
    assert not study_of(record, "gan").study.trials


def test_study_follows_the_record(tmp_path):
    record = record_of(tmp_path)
    study = study_of(record)
    ended = run_trial(record, 9.0, status="running")
    run_trial(record, 8.0, status="running")
    lost = run_trial(record, 7.0, status="running")
    study.update()
    assert [trial.state for trial in study.study.trials] == [TrialState.RUNNING] * 3

    record.end(ended.id, "completed", "")
    del record.trials[lost.id]
    study.update()

    assert [trial.state for trial in study.study.trials] == [
        TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL,
    ]  # fmt: skip


def test_what_is_proposed_and_not_begun_is_no_trial(tmp_path):
    record = record_of(tmp_path)
    study = study_of(record)
    space = record.plan.search_space()
    proposed = study.propose(RandomSampler(seed=0), space.suggest)
    run_trial(record, 9.0)
    study.update()

    assert space.flatten(proposed)
    states = [TrialState.COMPLETE, TrialState.RUNNING]
    assert len(study.study.get_trials(states=states)) == 1
