"""A trial in plain torch: exact resumption, averages, divergence, agreement between workers."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from object_store import object_store
from tiny_settings import SIZE, TINY

from thermal_search import checkpoint
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.data.batches import PairedBatches, UnpairedBatches
from thermal_search.data.frames import EvaluationPairs, Frames, WorkerFrames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import SearchError, TrialDiverged
from thermal_search.evaluation.baselines import measure_baselines
from thermal_search.evaluation.evaluator import Evaluator
from thermal_search.metrics import Extractor, Statistics
from thermal_search.storage import Location
from thermal_search.training.trial import Trial, TrialPlan

CPU = torch.device("cpu")
METRIC = "fd_efficientnet_lite0"


class Pooled(torch.nn.Module):
    """A feature extractor small enough for tests: pixels averaged to 4 x 4, one channel."""

    def forward(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images[:, :1], 4).flatten(1)


def frames(count, channels, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, SIZE, SIZE, channels), np.uint8).transpose(0, 3, 1, 2)
    return Frames([pixels[:3], pixels[3:]], size=SIZE, channels=channels)


def data_of(rank=0, workers=1, shares=((0, 16), (16, 40))):
    """A share of 24 training and 40 validation pairs; the latter cut at a multiple of 16."""

    def part(whole, start, stop):
        channels, size, _ = whole.shape
        pixels = whole.take(range(start, stop)).numpy()
        return Frames([pixels], size=size, channels=channels)

    training = frames(24, 3, 1), frames(24, 1, 2)
    validation = frames(40, 3, 3), frames(40, 1, 4)
    half = slice(0, 24) if workers == 1 else slice(12 * rank, 12 * rank + 12)
    seen = (0, 40) if workers == 1 else shares[rank]
    pairs = tuple(part(whole, half.start, half.stop) for whole in training)
    judged = tuple(part(whole, *seen) for whole in validation)
    unseen = EvaluationPairs(frames(0, 3, 0), frames(0, 1, 0), 0)
    return WorkerFrames(SIZE, pairs, pairs, EvaluationPairs(*judged, seen[0]), unseen)


def evaluator_of(data, group):
    torch.manual_seed(0)
    classifier = torch.nn.Linear(16, 5)
    extractor = Extractor("efficientnet-lite0", 16, Pooled(), lambda x: x / 255, classifier)
    thermal = data_of().validation.thermal
    statistics = Statistics.of(extractor(thermal.take(range(40))))
    return Evaluator(data.validation, extractor, statistics, group, CPU)


def trial_of(plan, group=None, rank=0, workers=1):
    group = group or WorkerGroup()
    data = data_of(rank, workers)
    return Trial(plan, data, evaluator_of(data, group), group, CPU)


def plan_of(folder, architecture="pix2pix", **changes):
    parameters = TINY[architecture] | changes.pop("parameters", {})
    settings = {"images": 24, "evaluate_every": 8, "precision": "fp32", "seed": 3} | changes
    return TrialPlan(
        id="t", architecture=architecture, parameters=parameters, folder=folder, **settings
    )


def told(evaluations):
    """What must not depend on the clock."""
    return [(item.images, item.metrics, item.losses) for item in evaluations]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("average", [0, 100])
def test_a_stopped_trial_goes_on_to_the_very_same_weights(tmp_path, architecture, average):
    parameters = {"ema_half_life_images": average}
    whole = trial_of(plan_of(tmp_path / "whole", architecture, parameters=parameters))
    expected = told(whole.evaluations())

    plan = plan_of(tmp_path / "cut", architecture, parameters=parameters)
    first = trial_of(plan)
    next(first.evaluations())
    torch.manual_seed(999)  # another process would have another random state
    second = trial_of(plan)
    assert told(second.history) == expected[:1]
    list(second.evaluations())

    assert told(second.history) == expected
    pairs = zip(
        whole.translator.state_dict().items(), second.translator.state_dict().values(), strict=True
    )
    for (name, a), b in pairs:
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), name


def test_a_finished_trial_has_nothing_left_to_do_but_tells_its_history(tmp_path):
    plan = plan_of(tmp_path)
    expected = told(trial_of(plan).evaluations())
    again = trial_of(plan)

    assert again.is_done
    assert list(again.evaluations()) == []
    assert told(again.history) == expected


def test_evaluations_come_when_asked_for_and_the_budget_is_met(tmp_path):
    trial = trial_of(plan_of(tmp_path, images=30, evaluate_every=10))

    # Steps of four images: each evaluation at the first step that reaches its mark.
    assert [item.images for item in trial.evaluations()] == [12, 20, 32]


def test_one_state_is_kept_and_an_unfinished_one_is_not_seen(tmp_path):
    plan = plan_of(tmp_path)
    list(trial_of(plan).evaluations())
    (tmp_path / "state-00000099").mkdir()

    assert checkpoint.latest(tmp_path).name == "state-00000024"
    assert {p.parent.name for p in tmp_path.rglob("shared.pt")} == {"state-00000024"}


def test_checkpoints_load_without_running_code(tmp_path):
    list(trial_of(plan_of(tmp_path)).evaluations())

    for file in tmp_path.rglob("*.pt"):
        assert checkpoint.load(file)  # weights_only


def test_the_generator_kept_is_the_one_of_the_last_evaluation(tmp_path):
    trial = trial_of(plan_of(tmp_path, images=40, evaluate_every=4))
    history = list(trial.evaluations())
    kept = checkpoint.load(tmp_path / "generator.pt")

    assert min(item.metrics[METRIC] for item in history) < history[-1].metrics[METRIC]
    assert (kept["images"], kept["metrics"]) == (40, history[-1].metrics)


def test_the_average_moves_slower_than_the_generator_and_is_what_is_judged(tmp_path):
    parameters = {"ema_half_life_images": 10**6, "generator_lr": 0.01}
    trial = trial_of(plan_of(tmp_path, parameters=parameters))
    start = {k: v.clone() for k, v in trial.translator.generator.named_parameters()}
    list(trial.evaluations())
    kept = checkpoint.load(tmp_path / "generator.pt")["generator"]
    live = dict(trial.translator.generator.named_parameters())

    moved = sum((live[name] - value).abs().sum().item() for name, value in start.items())
    lag = sum((live[name] - kept[name]).abs().sum().item() for name in start)
    # Its half-life is that of a short trial, not the million images asked for.
    assert 0 < lag < moved / 2


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_a_loss_that_is_no_number_ends_the_trial_and_keeps_the_last_state(tmp_path, architecture):
    trial = trial_of(plan_of(tmp_path, architecture))
    next(trial.evaluations())
    with torch.no_grad():
        next(trial.translator.generator.parameters()).fill_(float("nan"))

    with pytest.raises(TrialDiverged, match=r"became nan after 8 images"):
        list(trial.evaluations())
    assert checkpoint.latest(tmp_path).name == "state-00000008"


def test_judging_leaves_the_random_state_alone(tmp_path):
    plan = plan_of(tmp_path / "one", images=16, evaluate_every=16)
    rare = told(trial_of(plan).evaluations())
    often = told(
        trial_of(dataclasses.replace(plan, folder=tmp_path / "two", evaluate_every=8)).evaluations()
    )

    assert rare[-1][:2] == often[-1][:2]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_judging_again_finds_the_very_same(tmp_path, architecture):
    trial = trial_of(plan_of(tmp_path, architecture))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(trial.evaluator.evaluate(trial.translator, tmp_path / "grid.png"))

    assert found[0] == found[1]


def test_a_picture_grid_is_drawn_at_each_evaluation(tmp_path):
    for evaluation in trial_of(plan_of(tmp_path)).evaluations():
        assert (tmp_path / evaluation.grid).read_bytes().startswith(b"\x89PNG")


def test_unknown_parameters_are_one_sentence(tmp_path):
    with pytest.raises(SearchError, match="Unknown parameters of pix2pix: speed"):
        trial_of(plan_of(tmp_path, parameters={"speed": 1}))


def train_with_two(rank, place):
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    torch.set_num_threads(1)
    group, found = WorkerGroup(), {}
    for architecture in sorted(ARCHITECTURES):
        plan = plan_of(Path(place) / architecture, architecture)
        first = trial_of(plan, group, rank, 2)
        next(first.evaluations())
        second = trial_of(plan, group, rank, 2)
        list(second.evaluations())
        # The generator is the same on both workers, buffers included.
        weights = second.translator.generator.state_dict().values()
        total = sum(value.double().sum().item() for value in weights)
        found[architecture] = [told(second.history), total]
    Path(place, f"told-{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def told_by_two(tmp_path_factory):
    """What two workers tell of a trial of each architecture, stopped once and gone on with."""
    place = tmp_path_factory.mktemp("two")
    multiprocessing.spawn(train_with_two, (str(place),), nprocs=2)
    return [json.loads((place / f"told-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_two_workers_train_one_generator_and_resume(told_by_two, architecture):
    one, two = (told[architecture] for told in told_by_two)

    assert one == two
    assert [item[0] for item in one[0]] == [8, 16, 24]


STILLS = frames(11, 1, 5)


def judge_with_two(rank, place, shares):
    dist.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=2)
    data = data_of(rank, 2, shares)
    evaluator = evaluator_of(data, WorkerGroup())
    found = evaluator.evaluate(translator_of(), Path(place) / "two.png")
    _, paired = data.paired
    stills = STILLS.slice(*((0, 4), (4, 11))[rank])
    baselines = measure_baselines(evaluator, [paired, stills])
    Path(place, f"found-{rank}").write_text(json.dumps([found.metrics, baselines]))
    dist.destroy_process_group()


def translator_of():
    torch.manual_seed(0)
    return build("pix2pix", SIZE, TINY["pix2pix"])


@pytest.mark.parametrize("shares", [((0, 16), (16, 40)), ((0, 40), (40, 40))])
def test_two_workers_judge_as_one_does(tmp_path, shares):
    # With few validation frames, the second worker has none at all.
    multiprocessing.spawn(judge_with_two, (str(tmp_path), shares), nprocs=2)
    data = data_of()
    evaluator = evaluator_of(data, WorkerGroup())
    one = evaluator.evaluate(translator_of(), tmp_path / "one.png")
    two = [json.loads((tmp_path / f"found-{rank}").read_text()) for rank in (0, 1)]

    assert two[0] == two[1]
    suffixed = {f"{name}_efficientnet_lite0" for name in ("kid", "kid_std", "inception_score")}
    plain = {METRIC, f"{METRIC}_infinity", "l1", "psnr", "ssim"}
    assert set(two[0][0]) == plain | suffixed
    assert two[0][0] == pytest.approx(one.metrics, rel=1e-6)
    _, paired = data.paired
    baselines = measure_baselines(evaluator, [paired, STILLS])
    assert set(two[0][1]) == set(baselines)
    for name, baseline in baselines.items():
        assert two[0][1][name] == pytest.approx(baseline, rel=1e-6), name


def test_the_error_is_the_mean_absolute_difference_of_the_pixels(tmp_path):
    data, translator = data_of(), translator_of()
    validation = data.validation
    rgb, thermal = (part.take(range(40)).float() for part in (validation.rgb, validation.thermal))
    translator.translate = lambda batch, z=None: batch[:, :1]
    found = evaluator_of(data, WorkerGroup()).evaluate(translator, tmp_path / "one.png")

    assert found.metrics["l1"] == pytest.approx(
        (rgb[:, :1] - thermal).abs().mean().item(), rel=1e-4
    )


def test_paired_batches_show_the_same_scene_mirrored_alike():
    # Each frame's number is its brightness; a mark on the left tells which way it looks.
    pixels = np.zeros((10, 3, 8, 8), np.uint8)
    pixels[:] = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20
    pixels[..., 0] += 10
    rgb = Frames([pixels], size=8, channels=3)
    thermal = Frames([pixels[:, :1].copy()], size=8, channels=1)
    batches = PairedBatches(rgb, thermal, batch_size=5, seed=0, device=CPU)
    seen, mirrored = [], set()
    for _ in range(4):
        batch = next(batches)
        assert torch.equal(batch.rgb[:, :1], batch.thermal)
        seen += ((batch.thermal[:, 0, 0, 3] + 1) * 127.5 / 20).round().int().tolist()
        mirrored |= set((batch.thermal[:, 0, 0, 0] > batch.thermal[:, 0, 0, 3]).tolist())

    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert mirrored == {True, False}


def test_unpaired_batches_draw_each_kind_by_itself_and_every_frame_an_epoch():
    rgb, thermal = frames(9, 3, 0), frames(6, 1, 0)
    batches = UnpairedBatches(rgb, thermal, batch_size=3, seed=0, device=CPU)
    shown = [next(batches) for _ in range(6)]

    def kinds(images):
        return {tuple(sorted(image.flatten().tolist())) for image in images}

    assert len(kinds(torch.cat([b.rgb for b in shown[:3]]))) == 9
    assert len(kinds(torch.cat([b.thermal for b in shown[:2]]))) == 6


def test_batches_go_on_where_they_were():
    def make():
        return PairedBatches(frames(9, 3, 0), frames(9, 1, 1), batch_size=4, seed=1, device=CPU)

    batches = make()
    next(batches)
    state = batches.state_dict()
    expected = [next(batches).rgb for _ in range(5)]
    other = make()
    other.load_state_dict(state)

    assert all(torch.equal(next(other).rgb, rgb) for rgb in expected)


@pytest.fixture(scope="module")
def bucket():
    with object_store() as server:
        folder = Location.of(server.uri("bucket"))
        folder.make_folder()
        yield folder


def test_a_state_in_a_bucket_is_whole_or_absent(bucket):
    plan = plan_of(bucket / "trial", images=16)
    expected = told(trial_of(plan_of(bucket / "whole", images=16)).evaluations())
    next(trial_of(plan).evaluations())
    # What is there when a worker dies between the parts of the next state: all but the mark.
    torn = checkpoint.pending(plan.folder, 16)
    for part in checkpoint.parts(checkpoint.latest(plan.folder)):
        (torn / part).write_bytes(b"torn")

    assert checkpoint.latest(plan.folder).name == "state-00000008"
    again = trial_of(plan)
    assert told(again.history) == expected[:1]
    assert told(again.history) + told(again.evaluations()) == expected
    assert checkpoint.latest(plan.folder) == torn
    assert {p.parent.name for p in plan.folder.list(deep=True) if p.name == "shared.pt"} == {
        "state-00000016"
    }


def test_parts_of_an_attempt_that_broke_off_are_not_of_the_state(tmp_path):
    plan = plan_of(tmp_path)
    stale = checkpoint.pending(plan.folder, 8) / "worker-1.pt"
    stale.write_bytes(b"stale")
    next(trial_of(plan).evaluations())

    assert checkpoint.parts(checkpoint.latest(plan.folder)) == ["shared.pt", "worker-0.pt"]
