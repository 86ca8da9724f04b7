"""What a score is read against, and the distance at infinitely many images."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_training import (
    CPU,
    Pooled,
    data_of,
    evaluator_of,
    frames,
    plan_of,
    translator_of,
    trial_of,
)
from tiny_settings import SIZE
from torchvision.transforms.functional import rgb_to_grayscale

from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import MetricError, SearchError, TrialDiverged
from thermal_search.evaluation.baselines import load_or_measure_baselines, measure_baselines
from thermal_search.evaluation.evaluator import Evaluator, full_protocol
from thermal_search.metrics import Extractor, Protocol, Reference, Statistics, at_infinity
from thermal_search.storage import Location
from thermal_search.tuning.search import require_same_protocol
from thermal_search.tuning.slots.worker_loop import SlotPlan, build_evaluator

METRIC, KERNEL = "fd_efficientnet_lite0", "kid_efficientnet_lite0"


@pytest.fixture(scope="module")
def evaluator():
    return evaluator_of(data_of(), WorkerGroup())


@pytest.fixture(scope="module")
def baselines(evaluator):
    return measure_baselines(evaluator, [frames(24, 1, 2)])


def test_the_floors_hold_the_measures_that_apply_to_each(baselines):
    assert set(baselines) == {"real_halves", "train", "inverted_grey", "mean_thermal"}
    for name, baseline in baselines.items():
        assert {METRIC, KERNEL} <= set(baseline)
        assert baseline["images"] == (20 if name == "real_halves" else 40)
        assert (
            ("l1" in baseline)
            == ("psnr" in baseline)
            == (name in ("inverted_grey", "mean_thermal"))
        )


def test_inverted_grey_is_judged_as_a_generator_would_be(evaluator, baselines, tmp_path):
    translator = translator_of()
    inverted = lambda rgb, z=None: -rgb_to_grayscale(rgb)  # noqa: E731 - in network range
    translator.translate = inverted
    found = evaluator.evaluate(translator, tmp_path / "grid.png")

    assert baselines["inverted_grey"][METRIC] == pytest.approx(
        found.metrics[METRIC], rel=0.02, abs=1e-4
    )
    assert baselines["inverted_grey"]["l1"] == pytest.approx(found.metrics["l1"], abs=1)


def test_the_mean_picture_is_nearest_in_pixels_and_far_in_distribution(baselines):
    assert baselines["mean_thermal"]["l1"] < baselines["inverted_grey"]["l1"]
    assert baselines["mean_thermal"][METRIC] > baselines["train"][METRIC]


def test_real_halves_are_nearer_than_what_is_not_real(baselines):
    assert baselines["real_halves"][METRIC] < baselines["mean_thermal"][METRIC]


def test_floors_are_measured_once_a_dataset_and_protocol(evaluator, tmp_path):
    place = Location.of(tmp_path)
    first = load_or_measure_baselines(evaluator, [frames(24, 1, 2)], place, "val")
    # Other training frames would give other baselines, were they measured again.
    assert load_or_measure_baselines(evaluator, [frames(24, 1, 9)], place, "val") == first
    (kept,) = tmp_path.iterdir()

    few = evaluator.pairs
    other = Evaluator(
        few, evaluator.extractor, Statistics.of(evaluator.real.rows[:30]), WorkerGroup(), CPU
    )
    load_or_measure_baselines(other, [frames(24, 1, 2)], place, "val")
    assert len(list(tmp_path.iterdir())) == 2
    kept.write_text("{ cut off")
    assert load_or_measure_baselines(evaluator, [frames(24, 1, 2)], place, "val") == first


def test_what_paints_no_numbers_is_not_judged_as_dark(evaluator, tmp_path):
    translator = translator_of()
    translator.translate = lambda rgb, z=None: rgb[:, :1] * float("nan")
    with pytest.raises(TrialDiverged, match=r"painted [0-9]+ pixels that are not finite"):
        evaluator.evaluate(translator, tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()


def test_every_trial_is_judged_on_the_same_pictures_with_the_same_draws(evaluator, tmp_path):
    seen = []
    for random in (1, 2):
        translator = translator_of()

        def paint(rgb, z=None):
            seen[-1].append((rgb.clone(), torch.rand(2)))
            return rgb[:, :1]

        translator.translate = paint
        torch.manual_seed(random)
        seen.append([])
        evaluator.evaluate(translator, tmp_path / "grid.png")

    assert sum(len(rgb) for rgb, _ in seen[0]) == 40
    for (rgb, draw), (other_rgb, other_draw) in zip(*seen, strict=True):
        assert torch.equal(rgb, other_rgb)
        assert torch.equal(draw, other_draw)


def test_every_rung_is_measured_by_one_protocol_which_goes_with_the_generator(tmp_path):
    trial = trial_of(plan_of(tmp_path, images=16))
    images = [trial.evaluator.full_protocol["images"] for _ in trial.evaluations()]
    kept = torch.load(tmp_path / "generator.pt", weights_only=True)["protocol"]

    assert images == [40, 40]
    assert kept == trial.evaluator.full_protocol
    assert {"features", "weights", "images", "resize", "precision"} <= set(kept)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features", "efficientnet-lite0"),
        ("weights", "bb"),
        ("images", 10),
        ("resize", "32 px"),
        ("precision", "bf16"),
        ("lpips", "alexnet"),
    ],
)
def test_a_search_does_not_go_on_by_another_protocol(name, value):
    first = Protocol(
        features="inception", weights="aa", images=9, resize="64 px", precision="fp32"
    ).to_json()
    require_same_protocol(first, dict(first))
    told = f"began with {name} {first.get(name)}, but would now measure with {value}"
    with pytest.raises(SearchError, match=told):
        require_same_protocol(first | {name: value}, first)


def extractor_of(seed):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(Pooled(), torch.nn.Linear(16, 4))
    return Extractor("efficientnet-lite0", 4, network, lambda x: x / 255)


def test_a_worker_with_other_weights_does_not_evaluator(tmp_path):
    data, own = data_of(), extractor_of(1)
    plan = SlotPlan(
        shares=[],
        statistics=Location.of(tmp_path / "statistics"),
        validation_count=40,
        test_count=0,
        features=own.name,
        features_precision="fp32",
        inception_weights=None,
        lpips_weights=None,
        protocol=full_protocol(own.protocol(images=40, size=SIZE), None),
        metric=METRIC,
        threads=1,
    )
    assert (
        build_evaluator(plan, data, "val", own, None, WorkerGroup(), CPU).full_protocol
        == plan.protocol
    )
    other = extractor_of(2)
    told = f"measures with .*{own.digest}.* has .*{other.digest}.*: give all machines the same"
    with pytest.raises(MetricError, match=told):
        build_evaluator(plan, data, "val", other, None, WorkerGroup(), CPU)
    lpips = replace(plan, protocol={**plan.protocol, "lpips": "alexnet aa"})
    with pytest.raises(MetricError, match=r"measures with .*'lpips': 'alexnet aa'"):
        build_evaluator(lpips, data, "val", own, None, WorkerGroup(), CPU)
    # Nothing is kept of what was refused.
    assert len(list((tmp_path / "statistics").iterdir())) == 1


def gaussian(count, seed, shift=0.0, scale=1.0):
    random = np.random.default_rng(seed)
    return Statistics.of(torch.from_numpy(random.normal(shift, scale, (count, 8))))


def test_at_infinity_the_distance_is_that_of_the_distributions():
    reference = Reference(gaussian(20_000, 0))
    sets = [gaussian(100, seed, 0.5, 1.2) for seed in range(1, 101)]
    truth = 8 * (0.5**2 + 0.2**2)
    plain = np.mean([reference.distance(painted) for painted in sets])
    extrapolated = np.mean([at_infinity(reference, painted) for painted in sets])

    assert abs(extrapolated - truth) < (plain - truth) / 3
    assert at_infinity(reference, gaussian(19, 1)) is None
