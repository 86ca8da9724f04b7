"""What a search tries next. No Ray."""

import pytest
from summaries import evaluate, record_of

from thermal_search.errors import SettingsError
from thermal_search.tuning.proposals import Proposals
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.space import load_spaces
from thermal_search.tuning.space_flags import parse_fixed

# Optuna calls grouped, multivariate TPE experimental.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
ARCHITECTURES = ("pix2pix", "wgan")


def search(record, count):
    """Continues a search by `count` trials; returns their configurations."""
    proposals, configs = Proposals(record, ARCHITECTURES), []
    for _ in range(count):
        number, config = proposals.propose()
        trial = record.add(number, config)
        evaluate(record, trial.id, 100.0 - number, 90.0 - 7 * number % 5)
        record.end(trial.id, "stopped" if number % 3 else "completed", "")
        configs.append(config)
    return configs


def test_published_points_come_first(tmp_path):
    record = record_of(tmp_path)
    configs = search(record, 3)

    assert [config.architecture for config in configs[:2]] == list(ARCHITECTURES)
    assert configs[0].parameters["l1_weight"] == 100.0
    assert [trial.number for trial in record.trials.values()] == [0, 1, 2]


def test_resumed_search_proposes_what_an_undisturbed_one_does(tmp_path):
    undisturbed = search(record_of(tmp_path / "whole"), 14)
    parts = search(record_of(tmp_path / "parts"), 5)
    for count in (6, 3):
        parts += search(SearchRecord.load(tmp_path / "parts"), count)

    assert parts == undisturbed
    whole = SearchRecord.load(tmp_path / "whole")
    other = SearchRecord.of(whole.plan.replace(seed=1))
    assert Proposals(other, ARCHITECTURES).propose() != Proposals(whole, ARCHITECTURES).propose()


def test_trial_that_is_lost_leaves_the_number_of_the_next(tmp_path):
    record = record_of(tmp_path)
    search(record, 5)
    del record.trials["00003"]

    assert Proposals(record, ARCHITECTURES).propose()[0] == 5


def test_added_architecture_is_tried_next(tmp_path):
    record = record_of(tmp_path)
    search(record, 4)
    proposals = Proposals(record, (*ARCHITECTURES, "gan"))
    number, config = proposals.propose()
    record.add(number, config)

    assert (number, config.architecture) == (4, "gan")
    assert proposals.propose()[0] == 5


def test_fixed_parameters_are_those_of_every_trial_and_the_others_are_searched(tmp_path):
    fix = ("pix2pix.batch_size=8", "pix2pix.norm=instance", "pix2pix.dropout=0.25")
    fix += ("pix2pix.generator_network=unet",)  # only there is dropout
    record = record_of(tmp_path, fix=fix)
    proposals = Proposals(record, ("pix2pix",))
    configs = []
    for _ in range(4):
        number, config = proposals.propose()
        record.add(number, config)
        configs.append(config.parameters)

    for config in configs:
        assert (config["batch_size"], config["norm"], config["dropout"]) == (8, "instance", 0.25)
    assert configs[0]["l1_weight"] == 100.0  # as published
    assert len({config["l1_weight"] for config in configs}) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size=8", "must name a parameter of pix2pix, wgan, as in pix2pix.batch_size=8"),
        ("unit.batch_size=8", "must name a parameter of pix2pix, wgan"),
        ("pix2pi.batch_size=8", "did you mean pix2pix.batch_size"),
        ("pix2pix.size=8", "pix2pix has no parameter 'size'. Available: generator_lr"),
        ("pix2pix.batchsize=8", "Did you mean batch_size"),
        ("pix2pix.batch_size=7", "must be one of 1, 2, 4, 8, 16"),
        ("pix2pix.dropout=much", "must be a number from 0.0 to 0.6"),
        ("wgan.n_critic=0.5", "must be a number from 1 to 10"),
    ],
)
def test_value_outside_the_search_space_is_one_sentence(text, message):
    with pytest.raises(SettingsError, match=message):
        parse_fixed([text], load_spaces(ARCHITECTURES))
