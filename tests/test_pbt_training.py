"""What changes in flight: that it may, in every architecture, and that a trial continues from the
state of another as the record says. Plain torch, no Ray."""

import dataclasses

import pytest
import torch
from tiny_settings import TINY
from training_helpers import plan_of, trial_of

import search_spaces
from thermal_search import checkpoint
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.training.trial_plan import (
    ComparisonPoints,
    Course,
    LaterParameters,
    StateOrigin,
)

SWITCHES = {
    "l1_weight": {"l1": True},
    "r1_gamma": {"r1": True},
    "feature_matching_weight": {"feature_matching": True},
    "manifold_interpolation_weight": {"manifold_interpolation": True},
    "generator_adam_lr": {"optimizer": "adam"},
    "discriminator_adam_lr": {"optimizer": "adam"},
}
"""What makes a parameter apply, if the published setting leaves it out."""


def setting_with(architecture, name):
    """A tiny setting in which a parameter has an effect, and two values of it."""
    config = ARCHITECTURES[architecture].Config
    known = {field.name for field in dataclasses.fields(config)}
    switches = {key: value for key, value in SWITCHES.get(name, {}).items() if key in known}
    distribution = search_spaces.load(architecture).space[name]
    middle = (distribution.low + distribution.high) / 2
    return TINY[architecture] | switches | {name: middle}, {name: distribution.high}


def weights_of(trial):
    tensors = dict(trial.translator.named_parameters())
    return {name: value.detach().clone() for name, value in tensors.items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def train(folder, architecture, parameters, changes=(), steps=1):
    """A trial after its first steps."""
    course = Course(changes=changes) if changes else None
    trial = trial_of(plan_of(folder, architecture, parameters=parameters, course=course, images=64))
    for _ in range(steps):
        trial.step()
    return trial


FOUND = [(a, name) for a in search_spaces.names() for name in search_spaces.load(a).in_flight]


@pytest.mark.parametrize("architecture", search_spaces.names())
def test_every_architecture_changes_each_players_learning_rate_and_only_floats(architecture):
    space = search_spaces.load(architecture)
    players = build(architecture, 32, TINY[architecture]).players()
    rates = [name for name in space.in_flight if name.endswith("_lr")]

    assert len(rates) >= 2
    assert len(players) >= 2
    for name in space.in_flight:
        assert name in space.space
        assert name.endswith(("_lr", "_weight", "_gamma", "_ratio"))
    weights = {n for n in space.space if n.endswith(("_lr", "_weight")) and n != "weight_decay"}
    assert weights <= {*space.in_flight}


@pytest.mark.parametrize(("architecture", "name"), FOUND)
def test_parameter_changed_in_flight_acts_as_if_the_networks_were_built_with_it(
    tmp_path, architecture, name
):
    """From the same weights, a trial whose parameter changes between two steps and one that is
    built with the new value take the same step; and another one than without the change."""
    if name == "perceptual_weight":
        pytest.skip("the network of the perceptual loss takes long to build for each step")
    parameters, changed = setting_with(architecture, name)
    before = train(tmp_path, architecture, parameters)
    shown, random = before.progress.images, torch.get_rng_state()
    rebuilt = train(tmp_path, architecture, parameters | changed, steps=0)
    copy_training(before, rebuilt)
    torch.set_rng_state(random)
    rebuilt.step()
    later = LaterParameters(images=shown, parameters=parameters | changed)
    in_flight = train(tmp_path, architecture, parameters, (later,), steps=2)
    unchanged = train(tmp_path, architecture, parameters, steps=2)

    assert in_flight.translator.config == rebuilt.translator.config
    assert equal(weights_of(in_flight), weights_of(rebuilt))
    assert not equal(weights_of(in_flight), weights_of(unchanged))
    assert all(torch.isfinite(value).all() for value in weights_of(in_flight).values())


def copy_training(source, target):
    """Everything but the configuration, as a trial restores it from a state."""
    target.translator.load_state_dict(source.translator.state_dict())
    for name, player in target.optimizers.items():
        player.restore(source.optimizers[name].optimizer.state_dict())
    target.batches.load_state_dict(source.batches.state_dict())
    target.progress.images = source.progress.images
