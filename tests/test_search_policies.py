"""The recorded learning curves, and searches among them."""

import math

import pytest
from learning_curves import FURTHER_SEEDS, Run, runs, setting
from optuna.distributions import CategoricalDistribution, FloatDistribution
from recorded_curves import Curve, CurveFile, Evaluation, Head, NearestCurves, read_curves
from search_policies import POLICIES, simulate, true_value
from small_spaces import small_space
from tiny_settings import SIZE

import search_spaces
from search_spaces import SearchSpace
from thermal_search.architectures import build
from thermal_search.tuning.own_code import OwnSpace
from thermal_search.tuning.schedulers import build_scheduler

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SPACE = SearchSpace(
    space={
        "lr": FloatDistribution(1e-5, 1e-1, log=True),
        "kind": CategoricalDistribution(["a", "b"]),
        "weight": FloatDistribution(0.0, 10.0),
    },
    published={"lr": 1e-3, "kind": "a"},
    conditions={"weight": ("kind", ("b",))},
)
IMAGES, EVALUATIONS = 40, 10


def head_of(**changes):
    fields = {
        "size": 32, "images": {"gan": IMAGES, "wgan": IMAGES}, "evaluations": EVALUATIONS,
        "training_pairs": 8, "validation_pairs": 4, "seed": 0,
        "spaces": {name: OwnSpace.of(SPACE, "") for name in ("gan", "wgan")},
        "protocol": {"features": "efficientnet-lite0"}, "baselines": {}, "machine": "any",
        "versions": {}, "date": "2026-11-28",
    }  # fmt: skip
    return Head(**fields | changes)


def curve_of(number, architecture="gan", level=0.0, seconds=1.0, **parameters):
    evaluations = [
        Evaluation(
            images=IMAGES * n // EVALUATIONS, seconds=seconds * n, distance=level + 100 / n,
            kid=0.1, l1=20.0,
        )
        for n in range(1, EVALUATIONS + 1)
    ]  # fmt: skip
    return Curve(
        architecture=architecture, number=number, seed=0, status="completed",
        parameters={"lr": 1e-3, "kind": "a"} | parameters, evaluations=evaluations,
        seconds=seconds * EVALUATIONS, evaluation_seconds=1.0,
    )  # fmt: skip


def test_a_file_of_curves_resumes_without_the_line_that_was_cut_off(tmp_path):
    path = tmp_path / "curves.jsonl"
    CurveFile(path, head_of()).add(curve_of(0))
    with path.open("a") as file:
        file.write('{"architecture": "gan", "numb')

    file = CurveFile(path, head_of(machine="another"))
    assert file.recorded == {("gan", 0, 0)}
    file.add(curve_of(1))
    head, curves = read_curves(path)
    assert head == head_of()
    assert curves == [curve_of(0), curve_of(1)]


def test_a_file_of_another_recording_is_refused(tmp_path):
    path = tmp_path / "curves.jsonl"
    CurveFile(path, head_of())

    with pytest.raises(ValueError, match=r"curves\.jsonl holds curves of other images: continue"):
        CurveFile(path, head_of(images={"gan": 80, "wgan": 80}))
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(ValueError, match=r"line 1: version: Input should be 1: record the curves"):
        read_curves(path)


def test_each_setting_is_taken_once_the_nearest_first():
    curves = [
        curve_of(0, lr=1e-4), curve_of(1, lr=1e-2), curve_of(2, lr=1e-2, kind="b", weight=9.0),
    ]  # fmt: skip
    table = NearestCurves({"gan": SPACE}, curves)

    # On the scale of logarithms 9e-4 is nearer to 1e-4 than to 1e-2.
    taken = [table.take("gan", {"lr": 9e-4, "kind": "a"}).number for _ in range(2)]
    assert taken == [0, 1]
    assert table.take("gan", {"lr": 1e-5, "kind": "a"}).number == 2
    assert table.architectures == []
    with pytest.raises(ValueError, match="No recorded setting of gan is left"):
        table.take("gan", {"lr": 1e-5, "kind": "a"})


def test_conditional_parameters_tell_settings_apart():
    curves = [curve_of(n, kind="b", weight=weight) for n, weight in enumerate((1.0, 9.0))]
    table = NearestCurves({"gan": SPACE}, curves)

    assert table.take("gan", {"lr": 1e-2, "kind": "b", "weight": 8.0}).number == 1


@pytest.mark.parametrize("policy", POLICIES)
def test_a_search_with_enough_compute_finds_the_best_setting(policy):
    curves = [
        curve_of(n, name, level=10 * n + offset, lr=10 ** (-1 - n / 2))
        for name, offset in (("gan", 5.0), ("wgan", 0.0))
        for n in range(8)
    ]
    outcome = simulate(head_of(), curves, POLICIES[policy], 0, 2, math.inf)

    assert outcome.trials == len(curves)
    assert outcome.best[-1] == true_value(curves[8], 3)
    stops = POLICIES[policy].scheduler != "none" or POLICIES[policy].rule is not build_scheduler
    assert (outcome.completed < outcome.trials) == stops


def test_rungs_within_an_architecture_do_not_stop_its_only_trial():
    curves = [curve_of(0, "gan", level=90.0), curve_of(0, "wgan")]
    policy = POLICIES["tpe, asha within architectures"]

    assert simulate(head_of(), curves, policy, 0, 1, math.inf).completed == 2


def test_a_search_starts_nothing_once_its_compute_is_spent():
    curves = [curve_of(n, level=n) for n in range(20)]
    outcome = simulate(head_of(), curves, POLICIES["random"], 0, 1, 55.0)

    assert outcome.trials == outcome.completed == 6
    assert outcome.at(9.0) == math.inf
    assert outcome.reaches(outcome.best[-1]) <= 60.0


def test_a_diverged_setting_takes_the_time_until_it_diverged():
    diverged = curve_of(0).model_copy(
        update={"status": "diverged", "evaluations": curve_of(0).evaluations[:2], "seconds": 2.5}
    )
    outcome = simulate(head_of(), [diverged, curve_of(1)], POLICIES["random"], 0, 1, math.inf)

    assert outcome.spent == [12.5]
    assert true_value(diverged, 3) == math.inf


def test_rounds_have_each_architecture_once_and_one_with_further_seeds():
    planned = [*runs(["gan", "wgan"], 3)]

    assert planned[:4] == [
        Run("gan", 0, 0), Run("wgan", 0, 0), Run("gan", 0, 1), Run("gan", 0, 2),
    ]  # fmt: skip
    assert len(planned) == 3 * (2 + len(FURTHER_SEEDS))
    assert len({run.key for run in planned}) == len(planned)


@pytest.mark.parametrize("architecture", search_spaces.names())
def test_small_settings_build_networks_and_are_drawn_again_alike(architecture):
    space = small_space(architecture)
    for number in range(3):
        parameters = setting(space, architecture, number, 0)
        assert parameters == setting(space, architecture, number, 0)
        translator = build(architecture, SIZE, parameters)
        assert 8 <= translator.config.batch_size_at(1.0) <= 16
        # A trial is refused if its loss has the network that measures it.
        assert parameters.get("perceptual_network", "none") == "none"
        assert sum(p.numel() for p in translator.parameters()) < 10e6
