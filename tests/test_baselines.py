"""The baselines: which metrics they have, how they rank, and how they are cached."""

import json

import pytest
import torch
from torchvision.transforms.functional import rgb_to_grayscale
from training_helpers import (
    CPU,
    KID,
    METRIC,
    data_of,
    evaluator_of,
    random_frames,
    untrained_translator,
)

from thermal_search.data.frames import Frames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.evaluation.baselines import load_or_measure_baselines, measure_baselines
from thermal_search.evaluation.evaluator import Evaluator
from thermal_search.evaluation.ridge import RidgeRegression
from thermal_search.metrics import Statistics
from thermal_search.storage import Location

RGB = random_frames(24, 3, 1)
TRAINING, OTHER_TRAINING = [random_frames(24, 1, 2)], [random_frames(24, 1, 9)]


@pytest.fixture(scope="module")
def evaluator():
    return evaluator_of(data_of(), WorkerGroup())


@pytest.fixture(scope="module")
def baselines(evaluator):
    return measure_baselines(evaluator, TRAINING, RGB)


def test_each_baseline_has_the_metrics_that_apply_to_it(baselines):
    assert set(baselines) == {"real_halves", "train", "inverted_grey", "mean_thermal", "ridge"}
    for name, baseline in baselines.items():
        is_paired = name in ("inverted_grey", "mean_thermal", "ridge")
        assert {METRIC, KID} <= set(baseline)
        assert baseline["images"] == (20 if name == "real_halves" else 40)
        assert ("l1" in baseline) == ("psnr" in baseline) == is_paired


def test_inverted_grey_has_the_metrics_of_a_generator_that_inverts(evaluator, baselines, tmp_path):
    translator = untrained_translator()
    translator.translate = lambda rgb, z=None: -rgb_to_grayscale(rgb)  # in network range
    result = evaluator.evaluate(translator, tmp_path / "grid.png")

    assert baselines["inverted_grey"][METRIC] == pytest.approx(
        result.metrics[METRIC], rel=0.02, abs=1e-4
    )
    assert baselines["inverted_grey"]["l1"] == pytest.approx(result.metrics["l1"], abs=1)


def test_mean_image_is_near_in_pixels_and_far_in_distribution(baselines):
    assert baselines["mean_thermal"]["l1"] < baselines["inverted_grey"]["l1"]
    assert baselines["mean_thermal"][METRIC] > baselines["train"][METRIC]


def test_real_halves_are_nearer_than_the_mean_image(baselines):
    assert baselines["real_halves"][METRIC] < baselines["mean_thermal"][METRIC]


def frames_of(pixels):
    return Frames([pixels], size=pixels.shape[-1], channels=pixels.shape[1])


def pairs_with(rule, count=20, seed=0):
    """Smooth RGB images, and the thermal images that a rule makes of them."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 255
    rgb = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear")
    return tuple(
        frames_of(images.round().clamp(0, 255).byte().numpy()) for images in (rgb, rule(rgb))
    )


def test_ridge_regression_learns_a_linear_rule_of_color_and_place():
    height = torch.linspace(1, -1, 32)[:, None]

    def rule(rgb):
        return 128 + (0.4 * rgb[:, :1] - 0.3 * rgb[:, 2:]) * height

    regression = RidgeRegression.fit(*pairs_with(rule), WorkerGroup())
    rgb, thermal = pairs_with(rule, seed=1)
    error = regression.predict(rgb.take(range(20))).float() - thermal.take(range(20))
    mean = regression.thermal - thermal.take(range(20))

    assert error.abs().mean() < 0.2 * mean.abs().mean()


def test_ridge_regression_of_unrelated_pairs_is_the_mean_image():
    (rgb, _), (_, thermal) = (pairs_with(lambda rgb: rgb[:, :1], 1000, seed) for seed in (0, 1))
    regression = RidgeRegression.fit(rgb, thermal, WorkerGroup())

    assert (regression.predict(rgb.take(range(20))) - regression.thermal).abs().mean() < 6


def test_without_training_pairs_there_is_no_ridge_regression(evaluator):
    no_pairs = random_frames(0, 3, 0), random_frames(0, 1, 0)
    assert RidgeRegression.fit(*no_pairs, WorkerGroup()) is None
    training = [no_pairs[1], *TRAINING]
    assert "ridge" not in measure_baselines(evaluator, training, no_pairs[0])


def test_baselines_are_cached_by_dataset_and_protocol(evaluator, tmp_path):
    folder = Location.of(tmp_path)
    measured = load_or_measure_baselines(evaluator, TRAINING, RGB, folder, "val")
    # Without the cache, other training frames would have other baselines.
    assert load_or_measure_baselines(evaluator, OTHER_TRAINING, RGB, folder, "val") == measured

    fewer_images = Evaluator(
        evaluator.pairs,
        evaluator.extractor,
        Statistics.of(evaluator.real.rows[:30]),
        WorkerGroup(),
        CPU,
    )
    load_or_measure_baselines(fewer_images, TRAINING, RGB, folder, "val")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: "{ cut off",
        lambda content: json.dumps(content | {"version": 0}),
        lambda content: json.dumps(content | {"baselines": {"train": {"fid": "low"}}}),
        lambda content: json.dumps({"baselines": content["baselines"]}),
    ],
    ids=["cut off", "version", "type", "missing key"],
)
def test_damaged_cache_is_measured_again(evaluator, tmp_path, damage):
    folder = Location.of(tmp_path)
    measured = load_or_measure_baselines(evaluator, TRAINING, RGB, folder, "val")
    (cache,) = tmp_path.iterdir()
    intact = cache.read_text()
    cache.write_text(damage(json.loads(intact)))

    assert load_or_measure_baselines(evaluator, TRAINING, RGB, folder, "val") == measured
    assert cache.read_text() == intact
