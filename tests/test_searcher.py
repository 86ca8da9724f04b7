"""What Optuna learns of trials, and how many run at once. No Ray processes."""

import optuna
import pytest
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Experiment

from thermal_search.errors import SettingsError
from thermal_search.tuning.searcher import PruningOptunaSearch, RetrainingQueue, build_searcher
from thermal_search.tuning.space import OBJECTIVE, RETRAINING_CONFIG, parse_fixed

# Optuna calls grouped, multivariate TPE experimental.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def studies(monkeypatch) -> list[optuna.Study]:
    """The studies that searchers create."""
    created = []
    create = optuna.study.create_study
    monkeypatch.setattr(
        optuna.study, "create_study", lambda **kw: created.append(create(**kw)) or created[-1]
    )
    return created


def run_trial(search, id, *values, status):
    """As Ray Tune reports it: each evaluation but the last, then the end with the last one."""
    assert search.suggest(id)
    for number, value in enumerate(values, start=1):
        result = {OBJECTIVE: value, "training_iteration": number, "status": "running"}
        if number < len(values):
            search.on_trial_result(id, result)
    search.on_trial_complete(id, result | {"status": status})


def test_stopped_trial_is_pruned_for_optuna(studies):
    search = build_searcher(["pix2pix"], seed=0)
    run_trial(search, "whole", 9.0, 7.0, 8.0, status="completed")
    run_trial(search, "lucky", 2.0, status="running")
    run_trial(search, "later", 5.0, 4.0, status="running")
    run_trial(search, "diverged", 5.0, 1e6, status="diverged")
    (study,) = studies
    whole, lucky, later, diverged = study.trials

    assert [t.state for t in (whole, lucky, later)] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED,
    ]  # fmt: skip
    assert study.best_trial == whole
    assert lucky.intermediate_values == {1: 2.0}
    assert later.intermediate_values == {1: 5.0, 2: 4.0}
    # A large objective and an end: Optuna avoids the point and waits for nothing.
    assert (diverged.state, diverged.value) == (TrialState.COMPLETE, 1e6)


def test_no_more_trials_run_than_there_are_slots(monkeypatch, tmp_path):
    """Also if a search resumes with more slots than it began with."""
    monkeypatch.setattr(PruningOptunaSearch, "slots", 2)
    search = build_searcher(["wgan"], seed=0)
    assert search.suggest("a")
    assert search.suggest("b")
    assert search.suggest("c") is None
    search.on_trial_complete("a", {"status": "completed", OBJECTIVE: 1.0, "training_iteration": 1})
    assert search.suggest("c")
    assert search.suggest("d") is None

    search.save(str(tmp_path / "state"))
    PruningOptunaSearch.slots = 3
    restored = build_searcher(["wgan"], seed=0)
    restored.restore(str(tmp_path / "state"))
    assert restored.suggest("d")
    assert restored.suggest("e") is None


def test_no_more_retrainings_run_than_there_are_slots(monkeypatch, tmp_path):
    def queue() -> RetrainingQueue:
        retrainings = RetrainingQueue()
        experiment = Experiment(
            "retrainings", tune.Trainable, config={RETRAINING_CONFIG: tune.grid_search([*"abcd"])}
        )
        retrainings.add_configurations(experiment)
        return retrainings

    monkeypatch.setattr(RetrainingQueue, "slots", 1)
    retrainings = queue()
    assert retrainings.next_trial()
    assert retrainings.next_trial() is None

    retrainings.save_to_dir(str(tmp_path), "state")
    RetrainingQueue.slots = 3
    restored = RetrainingQueue()
    restored.restore_from_dir(str(tmp_path))
    more = [restored.next_trial() for _ in range(3)]
    assert [trial and trial.config[RETRAINING_CONFIG] for trial in more] == ["b", "c", None]


def test_fixed_parameters_are_those_of_every_trial_and_the_others_are_searched():
    texts = ["pix2pix.batch_size=8", "pix2pix.norm=instance", "pix2pix.dropout=0.25"]
    search = build_searcher(["pix2pix"], seed=0, fixed=parse_fixed(texts, ["pix2pix"]))
    search.__class__.slots, slots = 4, search.__class__.slots
    try:
        trials = [search.suggest(str(number))["pix2pix"] for number in range(4)]
    finally:
        search.__class__.slots = slots

    for trial in trials:
        assert (trial["batch_size"], trial["norm"], trial["dropout"]) == (8, "instance", 0.25)
    assert trials[0]["l1_weight"] == 100.0  # as published
    assert len({trial["l1_weight"] for trial in trials}) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size=8", "must name a parameter of pix2pix, wgan, as in pix2pix.batch_size=8"),
        ("unit.batch_size=8", "must name a parameter of pix2pix, wgan"),
        ("pix2pix.size=8", "pix2pix has no parameter 'size'. Available: generator_lr"),
        ("pix2pix.batch_size=7", "must be one of 1, 2, 4, 8, 16"),
        ("pix2pix.dropout=much", "must be a number from 0.0 to 0.6"),
        ("wgan.n_critic=0.5", "must be a number from 1 to 10"),
    ],
)
def test_value_outside_the_search_space_is_one_sentence(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_fixed([text], ["pix2pix", "wgan"])
