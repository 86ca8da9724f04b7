"""Which hyperparameters mattered in recorded runs."""

import random

import pytest
from parameter_effects import effects, settings_of
from recorded_curves import Curve, Evaluation


def curve(architecture, number, distance, parameters, *, status="completed", seed=0):
    last = Evaluation(images=1, seconds=1.0, distance=distance, kid=0.0, l1=distance / 10)
    return Curve(
        architecture=architecture, number=number, seed=seed, parameters=parameters, status=status,
        evaluations=[last], seconds=1.0, evaluation_seconds=0.0,
    )  # fmt: skip


@pytest.fixture
def found():
    """The switch lowers the distance by a fifth in two architectures of different levels; nothing
    else matters."""
    draw = random.Random(0)
    curves = []
    for architecture, level in (("dcgan", 100.0), ("cgan", 400.0)):
        for number in range(40):
            parameters = {
                "l1": draw.random() < 0.5, "norm": draw.choice(["batch", "instance", "none"]),
                "lr": draw.random(), "only_here": draw.random(),
            }  # fmt: skip
            if architecture == "cgan":
                del parameters["only_here"]
            distance = level * (0.8 if parameters["l1"] else 1.0) * draw.uniform(0.99, 1.01)
            curves.append(curve(architecture, number, distance, parameters))
    curves.append(curve("cgan", 99, 10**6, {"l1": True}, status="diverged"))
    return {(e.parameter, e.value): e for e in effects(settings_of(curves))}


def test_effect_of_a_switch_is_found_in_all_architectures(found):
    effect = found["l1", "on"]

    assert effect.architectures == 2
    assert sum(effect.settings) == 80  # not the run that diverged
    difference, _ = effect.distance
    assert difference == pytest.approx(-22, abs=2)  # of the mean of settings with and without it
    assert effect.t < -30
    assert "*" in effect.row()


def test_what_does_not_matter_is_not_marked(found):
    assert {"batch", "instance", "none"} == {value for name, value in found if name == "norm"}
    assert found["only_here", "larger"].architectures == 1
    assert not any("*" in e.row() for (name, _), e in found.items() if name != "l1")


def test_seeds_of_a_setting_count_once():
    curves = [curve("gan", n, 100.0 + n, {}, seed=seed) for n in range(3) for seed in range(2)]

    assert [s.distance for s in settings_of(curves)] == pytest.approx([-0.990, 0, 0.990], abs=1e-3)
