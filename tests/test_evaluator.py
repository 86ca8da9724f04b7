"""Evaluation of a translator: the same conditions for every trial, by one protocol."""

from dataclasses import replace

import pytest
import torch
from tiny_settings import SIZE
from training_helpers import (
    CPU,
    Pooled,
    data_of,
    evaluator_of,
    plan_of,
    trial_of,
    untrained_translator,
)

from thermal_search import checkpoint
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import MetricError, SearchError, TrialDiverged
from thermal_search.evaluation.evaluator import full_protocol
from thermal_search.metrics import Extractor, Protocol
from thermal_search.storage import Location
from thermal_search.tuning.protocol import require_same_protocol
from thermal_search.tuning.slots.worker_loop import SlotPlan, build_evaluator


@pytest.fixture(scope="module")
def evaluator():
    return evaluator_of(data_of(), WorkerGroup())


def test_nan_pixels_are_a_divergence_and_not_dark_pixels(evaluator, tmp_path):
    translator = untrained_translator()
    translator.translate = lambda rgb, z=None: rgb[:, :1] * float("nan")
    with pytest.raises(TrialDiverged, match=r"generated [0-9]+ pixels that are not finite"):
        evaluator.evaluate(translator, tmp_path / "grid.png")
    assert not (tmp_path / "grid.png").exists()


def test_every_evaluation_has_the_same_images_and_random_draws(evaluator, tmp_path):
    evaluations = []
    for seed in (1, 2):
        translator, batches = untrained_translator(), []

        def translate(rgb, z=None, batches=batches):
            batches.append((rgb.clone(), torch.rand(2)))
            return rgb[:, :1]

        translator.translate = translate
        torch.manual_seed(seed)
        evaluator.evaluate(translator, tmp_path / "grid.png")
        evaluations.append(batches)

    assert sum(len(rgb) for rgb, _ in evaluations[0]) == 40
    for (rgb, draw), (other_rgb, other_draw) in zip(*evaluations, strict=True):
        assert torch.equal(rgb, other_rgb)
        assert torch.equal(draw, other_draw)


def test_every_evaluation_has_one_protocol_which_is_saved_with_the_generator(tmp_path):
    trial = trial_of(plan_of(tmp_path, images=16))
    images = [trial.evaluator.full_protocol["images"] for _ in trial.evaluations()]
    description, _ = checkpoint.load_generator(Location.of(tmp_path / "generator.pt"))

    assert images == [40, 40]
    assert description.protocol == trial.evaluator.full_protocol
    assert {"features", "weights", "images", "resize", "precision"} <= set(description.protocol)


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
def test_search_does_not_resume_with_another_protocol(name, value):
    first = Protocol(
        features="inception", weights="aa", images=9, resize="64 px", precision="fp32"
    ).to_json()
    require_same_protocol(first, dict(first))
    message = f"began with {name} {first.get(name)}, but would now measure with {value}"
    with pytest.raises(SearchError, match=message):
        require_same_protocol(first | {name: value}, first)


def extractor_of(seed):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(Pooled(), torch.nn.Linear(16, 4))
    return Extractor("efficientnet-lite0", 4, network, lambda x: x / 255)


def test_worker_with_other_weights_does_not_evaluate(tmp_path):
    data, own = data_of(), extractor_of(1)
    plan = SlotPlan(
        shards=[],
        statistics=Location.of(tmp_path / "statistics"),
        validation_count=40,
        test_count=0,
        features=own.name,
        features_precision="fp32",
        inception_weights=None,
        lpips_weights=None,
        protocol=full_protocol(own.protocol(images=40, size=SIZE), None),
        threads=1,
    )
    evaluator = build_evaluator(plan, data, "val", own, None, WorkerGroup(), CPU)
    assert evaluator.full_protocol == plan.protocol
    other = extractor_of(2)
    message = f"measures with .*{own.digest}.* has .*{other.digest}.*: give all machines the same"
    with pytest.raises(MetricError, match=message):
        build_evaluator(plan, data, "val", other, None, WorkerGroup(), CPU)
    lpips = replace(plan, protocol={**plan.protocol, "lpips": "alexnet aa"})
    with pytest.raises(MetricError, match=r"measures with .*'lpips': 'alexnet aa'"):
        build_evaluator(lpips, data, "val", own, None, WorkerGroup(), CPU)
    # The refused workers have cached nothing.
    assert len(list((tmp_path / "statistics").iterdir())) == 1
