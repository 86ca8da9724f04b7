"""What each sampler proposes: a function of the record, the seed and the number. No Ray."""

import logging
import math
import os

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from summaries import evaluate, record_of

import search_spaces
from thermal_search.tuning.proposals import Proposals
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.samplers import active, filled, static_space

# Optuna calls grouped, multivariate TPE experimental.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
ARCHITECTURES = ("pix2pix", "wgan")


@pytest.fixture(autouse=True)
def quick_writes(monkeypatch):
    """Nothing here is about a machine that loses power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def numbers_only(architecture):
    """--fix for every choice of an architecture, at its published value."""
    space = search_spaces.load(architecture)
    fixed = []
    for name, distribution in space.space.items():
        if isinstance(distribution, CategoricalDistribution):
            value = space.published.get(name, distribution.choices[0])
            fixed.append(f"{architecture}.{name}={value}")
    return tuple(fixed)


def settings_of(sampler):
    return {
        "sampler": sampler,
        "architectures": ARCHITECTURES,
        "startup_trials": 3,
    }


def search(record, count):
    """Continues a search by `count` trials, of which one is still running; returns them."""
    proposals, configs = Proposals(record, ARCHITECTURES), []
    for _ in range(count):
        number, config = proposals.propose()
        trial = record.add(number, config)
        configs.append(config)
        if number == 6:
            continue
        evaluate(record, trial.id, 100.0 - number, 90.0 - 7 * number % 5)
        status = "diverged" if number == 5 else "stopped" if number % 3 else "completed"
        record.end(trial.id, status, "")
    return configs


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp"])
def test_resumed_search_proposes_what_an_undisturbed_one_does(tmp_path, sampler, caplog):
    optuna.logging.enable_propagation()
    caplog.set_level(logging.WARNING)
    undisturbed = search(record_of(tmp_path / "whole", **settings_of(sampler)), 12)
    parts = search(record_of(tmp_path / "parts", **settings_of(sampler)), 5)
    for count in (5, 2):
        parts += search(SearchRecord.load(tmp_path / "parts"), count)
    other = SearchRecord.load(tmp_path / "whole")
    other = SearchRecord.of(other.plan.replace(seed=1))

    assert parts == undisturbed
    assert search(other, 1) != search(SearchRecord.load(tmp_path / "parts"), 1)
    # A sampler that falls back to random settings says so.
    assert "instead of" not in caplog.text
    space = other.plan.search_space()
    assert all(space.flatten(config) for config in undisturbed)
    assert {config.architecture for config in undisturbed} == {*ARCHITECTURES}


def test_model_of_an_architecture_prefers_what_was_good(tmp_path):
    """The higher the learning rate, the better; random ones are at 0.5 on average."""
    fix = numbers_only("wgan")
    space = search_spaces.load("wgan").space["generator_lr"]
    record = record_of(
        tmp_path, architectures=("wgan",), sampler="gp", fix=fix, startup_trials=8,
        no_published=True,
    )  # fmt: skip
    proposals = Proposals(record, ("wgan",))
    shares = []
    for _ in range(20):
        number, config = proposals.propose()
        trial = record.add(number, config)
        share = position(space, config.parameters["generator_lr"])
        shares.append(share)
        evaluate(record, trial.id, 100 * (1 - share))
        record.end(trial.id, "completed", "")

    assert sum(shares[-8:]) / 8 > 0.6


def position(distribution, value):
    """Where in its logarithmic range a value is, from 0 to 1."""
    low, high = math.log(distribution.low), math.log(distribution.high)
    return (math.log(value) - low) / (high - low)


def test_startup_trials_are_random_and_none_is_published_if_so_asked(tmp_path):
    changes = {"architectures": ("wgan",), "no_published": True}
    proposals = {}
    for startup in (0, 3, 100):
        record = record_of(tmp_path / str(startup), startup_trials=startup, **changes)
        proposals[startup] = search_wgan(record, 6)

    assert proposals[3][:3] == proposals[100][:3]
    assert proposals[3][3:] != proposals[100][3:]
    assert proposals[0][0] != search_spaces.load("wgan").published


def search_wgan(record, count):
    proposals, settings = Proposals(record, ("wgan",)), []
    for _ in range(count):
        number, config = proposals.propose()
        trial = record.add(number, config)
        evaluate(record, trial.id, 50.0 - number)
        record.end(trial.id, "completed", "")
        settings.append(config.parameters)
    return settings


@pytest.mark.parametrize("name", search_spaces.names())
def test_point_of_the_static_space_keeps_what_applies(name):
    space = search_spaces.load(name)
    point = filled(space, space.published)

    assert set(point) == set(static_space(space)) == set(space.space)
    assert active(space, point) == space.published
