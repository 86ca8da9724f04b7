"""What changes in flight: that it may, in every architecture, and that a trial continues from the
state of another as the record says. Plain torch, no Ray."""

import pytest
import torch
from tiny_settings import TINY
from training_helpers import CPU, data_of, plan_of, trial_of

import search_spaces
from thermal_search import checkpoint
from thermal_search.architectures import additions, build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.training.trial import Trial
from thermal_search.training.trial_plan import (
    ComparisonPoints,
    Course,
    LaterParameters,
    StateOrigin,
)

DATA = data_of()


def setting_with(architecture, name):
    """A tiny setting in which a parameter has an effect, and two values of it."""
    space = search_spaces.load(architecture)
    switches, condition = {}, name
    while condition in space.conditions:
        condition, values = space.conditions[condition]
        switches[condition] = values[0]
    distribution = space.space[name]
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
    plan = plan_of(folder, architecture, parameters=parameters, course=course, images=64)
    trial = Trial(plan, DATA, None, WorkerGroup(), CPU)
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
    tmp_path, monkeypatch, architecture, name
):
    """From the same weights, a trial whose parameter changes between two steps and one that is
    built with the new value take the same step; and another one than without the change."""
    monkeypatch.setattr(  # a small one, so that a step is short
        additions, "perceptual_loss", lambda network, fake, real: (fake - real).square().mean()
    )
    parameters, changed = setting_with(architecture, name)
    before = train(tmp_path, architecture, parameters)
    shown, random = before.progress.images, torch.get_rng_state()
    rebuilt = train(tmp_path, architecture, parameters | changed, steps=0)
    copy_training(before, rebuilt)
    torch.set_rng_state(random)
    rebuilt.step()
    later = LaterParameters(images=shown, parameters=parameters | changed)
    in_flight = train(tmp_path, architecture, parameters, (later,), steps=2)
    torch.set_rng_state(random)
    before.step()  # without the change

    assert in_flight.translator.config == rebuilt.translator.config
    assert equal(weights_of(in_flight), weights_of(rebuilt))
    assert not equal(weights_of(in_flight), weights_of(before))
    assert all(torch.isfinite(value).all() for value in weights_of(in_flight).values())


def copy_training(source, target):
    """Everything but the configuration, as a trial restores it from a state."""
    target.translator.load_state_dict(source.translator.state_dict())
    for name, player in target.optimizers.items():
        player.restore(source.optimizers[name].optimizer.state_dict())
    target.batches.load_state_dict(source.batches.state_dict())
    target.progress.images = source.progress.images


def results(evaluations):
    return [(item.images, item.metrics, item.losses) for item in evaluations]


POINTS = ComparisonPoints(every=8, first=0, last=16)


def pbt_plan(folder, parameters, **course):
    return plan_of(folder, "wgan", parameters=parameters, course=Course(points=POINTS, **course))


def exploit(tmp_path):
    """A donor that has trained to its end, another trial up to its first evaluation, and the plan
    with which that one continues from the donor's state there, with another learning rate."""
    settings = {"generator_lr": 1e-3, "n_critic": 1, "warmup_n_critic": 0}
    list(trial_of(pbt_plan(tmp_path / "00000", settings)).evaluations())
    own = trial_of(pbt_plan(tmp_path / "00001", settings | {"generator_lr": 1e-5}))
    next(own.evaluations())
    parameters = TINY["wgan"] | settings | {"generator_lr": 2e-3}
    plan = pbt_plan(
        tmp_path / "00001",
        settings,
        changes=(LaterParameters(images=8, parameters=parameters),),
        origin=StateOrigin(trial="00000", images=8, seconds=7.0),
    )
    return settings, plan


def test_states_at_the_points_are_kept_beside_the_two_latest(tmp_path):
    points = ComparisonPoints(every=8, first=0, last=16)
    plan = plan_of(tmp_path, "wgan", images=48, course=Course(points=points))
    list(trial_of(plan).evaluations())
    kept = sorted(int(folder.name.removeprefix("state-")) for folder in tmp_path.glob("state-*"))

    assert kept == [8, 16, 40, 48]
    assert checkpoint.is_kept(plan.folder, 16)
    assert not checkpoint.is_kept(plan.folder, 24)


def test_trial_continues_from_the_donors_state_with_its_own_parameters(tmp_path):
    settings, plan = exploit(tmp_path)
    donor = trial_of(pbt_plan(tmp_path / "00000", settings))
    continued = trial_of(plan)

    assert continued.progress.images == 8
    assert continued.progress.seconds == 7.0  # its own, not the donor's
    assert continued.history == []  # the donor's evaluations are not its own
    evaluations = results(continued.evaluations())
    assert [images for images, *_ in evaluations] == [16, 24]
    assert evaluations != results(donor.history)[1:]  # it trains with another learning rate
    assert not equal(weights_of(continued), weights_of(donor))
    exported, _ = checkpoint.load_generator(plan.folder / "generator.pt")
    assert exported.parameters["generator_lr"] == 2e-3


def test_resumed_trial_that_continued_from_another_reaches_identical_weights(tmp_path):
    whole = trial_of(exploit(tmp_path / "whole")[1])
    expected = results(whole.evaluations())
    _, plan = exploit(tmp_path / "cut")
    next(trial_of(plan).evaluations())
    resumed = trial_of(plan)
    assert results(resumed.history) == expected[:1]
    list(resumed.evaluations())

    assert results(resumed.history) == expected
    assert equal(weights_of(resumed), weights_of(whole))


def test_trial_whose_donor_has_lost_its_state_trains_as_its_ancestors_did(tmp_path):
    whole = trial_of(exploit(tmp_path / "whole")[1])
    expected = results(whole.evaluations())
    _, plan = exploit(tmp_path / "lost")
    checkpoint.remove(checkpoint.pending(plan.folder.parent / "00000", 8))
    again = trial_of(plan)
    assert again.progress.images == 0

    assert results(again.evaluations()) == expected
    assert equal(weights_of(again), weights_of(whole))


def test_retraining_repeats_the_schedule_with_another_seed(tmp_path):
    """With the same seed it even has the same weights as what it repeats."""
    whole = trial_of(exploit(tmp_path)[1])
    expected = results(whole.evaluations())
    settings, plan = exploit(tmp_path / "other")
    course = Course(changes=plan.changes)
    same = plan_of(tmp_path / "same", "wgan", parameters=settings, course=course)
    other = plan_of(tmp_path / "seed", "wgan", parameters=settings, course=course, seed=4)

    assert results(trial_of(same).evaluations())[1:] == expected
    assert results(trial_of(other).evaluations())[1:] != expected
