"""A trial in plain torch: exact resumption, averages, divergence, agreement between workers."""

import contextlib
import errno
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from object_store import object_store
from training_helpers import (
    CPU,
    METRIC,
    data_of,
    evaluator_of,
    plan_of,
    random_frames,
    trial_of,
    untrained_translator,
)
from two_workers import run_two_workers

from thermal_search import checkpoint
from thermal_search.architectures import ARCHITECTURES
from thermal_search.data.batches import PairedBatches, UnpairedBatches
from thermal_search.data.frames import Frames
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import SearchError, StorageError, TrialDiverged
from thermal_search.evaluation.baselines import measure_baselines
from thermal_search.storage import Location


def results(evaluations):
    """All that must not depend on the clock."""
    return [(item.images, item.metrics, item.losses) for item in evaluations]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("average", [0, 100])
def test_resumed_trial_reaches_identical_weights(tmp_path, architecture, average):
    parameters = {"ema_half_life_images": average}
    whole = trial_of(plan_of(tmp_path / "whole", architecture, parameters=parameters))
    expected = results(whole.evaluations())

    plan = plan_of(tmp_path / "cut", architecture, parameters=parameters)
    first = trial_of(plan)
    next(first.evaluations())
    torch.manual_seed(999)  # as another process would have another random state
    second = trial_of(plan)
    assert results(second.history) == expected[:1]
    list(second.evaluations())

    assert results(second.history) == expected
    pairs = zip(
        whole.translator.state_dict().items(), second.translator.state_dict().values(), strict=True
    )
    for (name, a), b in pairs:
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), name


def test_finished_trial_keeps_its_history_and_trains_no_further(tmp_path):
    plan = plan_of(tmp_path)
    expected = results(trial_of(plan).evaluations())
    again = trial_of(plan)

    assert again.is_done
    assert list(again.evaluations()) == []
    assert results(again.history) == expected


def test_evaluations_follow_the_interval_up_to_the_budget(tmp_path):
    trial = trial_of(plan_of(tmp_path, images=30, evaluate_every=10))

    # Steps of four images: each evaluation follows the first step that reaches its multiple.
    assert [item.images for item in trial.evaluations()] == [12, 20, 32]


def test_two_states_are_kept_and_an_uncommitted_one_is_ignored(tmp_path):
    plan = plan_of(tmp_path)
    list(trial_of(plan).evaluations())
    (tmp_path / "state-00000099").mkdir()

    assert checkpoint.latest(tmp_path).name == "state-00000024"
    states = {p.parent.name for p in tmp_path.rglob("shared.pt")}
    assert states == {"state-00000016", "state-00000024"}


@pytest.mark.parametrize("damaged", ["shared.pt", "worker-0.pt", "commit.json"])
@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_trial_with_a_damaged_state_resumes_from_the_one_before(tmp_path, damaged, content):
    plan = plan_of(tmp_path / "trial")
    expected = results(trial_of(plan_of(tmp_path / "whole")).evaluations())
    evaluations = trial_of(plan).evaluations()
    assert len([next(evaluations), next(evaluations)]) == 2
    file = tmp_path / "trial" / "state-00000016" / damaged
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    again = trial_of(plan)

    assert results(again.history) == expected[:1]
    assert results(again.history) + results(again.evaluations()) == expected


def unreadable(file):
    """Makes a file one that the system refuses to read."""
    file.unlink()
    file.symlink_to(file.name)


@pytest.mark.parametrize("refused", ["shared.pt", "worker-0.pt"])
def test_trial_whose_latest_state_the_disk_refuses_resumes_from_the_one_before(tmp_path, refused):
    list(trial_of(plan_of(tmp_path, images=16)).evaluations())
    unreadable(tmp_path / "state-00000016" / refused)
    assert checkpoint.latest(tmp_path).name == "state-00000008"

    unreadable(tmp_path / "state-00000008" / refused)
    with pytest.raises(OSError, match="symbolic links"):
        checkpoint.latest(tmp_path)


def refuse_the_latest_state(monkeypatch, error):
    read_bytes = Location.read_bytes

    def read(path, *limit):
        if "state-00000016" in str(path):
            raise error
        return read_bytes(path, *limit)

    monkeypatch.setattr(Location, "read_bytes", read)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_commit_file_that_the_disk_refuses_costs_one_state(tmp_path, monkeypatch, number):
    list(trial_of(plan_of(tmp_path, images=16)).evaluations())
    refuse_the_latest_state(monkeypatch, OSError(number, "refused"))

    assert checkpoint.latest(tmp_path).name == "state-00000008"


@pytest.mark.parametrize("error", [OSError(errno.ESTALE, "stale"), StorageError("no answer")])
def test_disk_or_store_that_is_gone_is_no_fault_of_a_state(tmp_path, monkeypatch, error):
    list(trial_of(plan_of(tmp_path, images=16)).evaluations())
    refuse_the_latest_state(monkeypatch, error)

    with pytest.raises(type(error)):
        checkpoint.latest(tmp_path)


def test_trial_whose_folder_was_renamed_stops_and_makes_no_second_one(tmp_path):
    """As after the output was renamed, or its disk unmounted."""
    output = tmp_path / "output"
    plan = plan_of(output / "trials" / "00000")
    evaluations = trial_of(plan).evaluations()
    next(evaluations)
    output.rename(tmp_path / "renamed")

    with pytest.raises(FileNotFoundError, match="output/trials/00000"):
        next(evaluations)
    with pytest.raises(FileNotFoundError, match="output/trials/00000"):
        list(trial_of(plan).evaluations())
    assert not output.exists()


def test_state_of_another_trial_is_not_used(tmp_path):
    """The record of a trial was lost, and another trial got its number."""
    next(trial_of(plan_of(tmp_path)).evaluations())
    other = plan_of(tmp_path, parameters={"generator_width": 8})

    assert trial_of(other).history == []


def test_full_disk_is_an_error_of_the_disk(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, "No space left on device")

    @contextlib.contextmanager
    def open_full(location, **settings):
        yield Full()

    monkeypatch.setattr(Location, "open_output", open_full)
    with pytest.raises(OSError, match="No space left"):
        next(trial_of(plan_of(tmp_path)).evaluations())


def test_checkpoints_load_with_weights_only(tmp_path):
    list(trial_of(plan_of(tmp_path)).evaluations())

    for file in tmp_path.rglob("*.pt"):
        assert checkpoint.load(file)


def test_saved_generator_is_that_of_the_last_evaluation(tmp_path):
    trial = trial_of(plan_of(tmp_path, images=40, evaluate_every=4))
    history = list(trial.evaluations())
    description, _ = checkpoint.load_generator(Location.of(tmp_path / "generator.pt"))

    assert min(item.metrics[METRIC] for item in history) < history[-1].metrics[METRIC]
    assert (description.images, description.metrics) == (40, history[-1].metrics)


def test_saved_generator_is_the_moving_average_which_lags_behind(tmp_path):
    parameters = {"ema_half_life_images": 10**6, "generator_lr": 0.01}
    trial = trial_of(plan_of(tmp_path, parameters=parameters))
    start = {k: v.clone() for k, v in trial.translator.generator.named_parameters()}
    list(trial.evaluations())
    _, averaged = checkpoint.load_generator(Location.of(tmp_path / "generator.pt"))
    live = dict(trial.translator.generator.named_parameters())

    moved = sum((live[name] - value).abs().sum().item() for name, value in start.items())
    lag = sum((live[name] - averaged[name]).abs().sum().item() for name in start)
    # The half-life is shortened for a short trial: it is not the million images of the config.
    assert 0 < lag < moved / 2


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_nan_loss_ends_the_trial_and_keeps_the_last_state(tmp_path, architecture):
    trial = trial_of(plan_of(tmp_path, architecture))
    next(trial.evaluations())
    with torch.no_grad():
        next(trial.translator.generator.parameters()).fill_(float("nan"))

    with pytest.raises(TrialDiverged, match=r"became nan after 8 images"):
        list(trial.evaluations())
    assert checkpoint.latest(tmp_path).name == "state-00000008"


def test_evaluation_does_not_change_the_random_state(tmp_path):
    plan = plan_of(tmp_path / "one", images=16, evaluate_every=16)
    rare = results(trial_of(plan).evaluations())
    often = results(trial_of(plan_of(tmp_path / "two", images=16, evaluate_every=8)).evaluations())

    assert rare[-1][:2] == often[-1][:2]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_repeated_evaluation_gives_identical_metrics(tmp_path, architecture):
    trial = trial_of(plan_of(tmp_path, architecture))
    repeated = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        repeated.append(trial.evaluator.evaluate(trial.translator, tmp_path / "grid.png"))

    assert repeated[0] == repeated[1]


def test_each_evaluation_draws_an_image_grid(tmp_path):
    for evaluation in trial_of(plan_of(tmp_path)).evaluations():
        assert (tmp_path / evaluation.grid).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_image_grid_of_the_untrained_generator_changes_no_result(tmp_path, architecture):
    with_grid = trial_of(plan_of(tmp_path / "with", architecture, images=8))
    results_with_grid = results(with_grid.evaluations())
    # Only now: a trial seeds the random numbers of the whole process.
    without = trial_of(plan_of(tmp_path / "without", architecture, images=8))

    assert results_with_grid == results([without._train_to_next_evaluation()])
    grids = sorted(path.name for path in (tmp_path / "with").glob("*.png"))
    assert grids == ["images-00000000.png", "images-00000008.png"]
    before, after = ((tmp_path / "with" / name).read_bytes() for name in grids)
    assert before != after
    for a, b in zip(
        with_grid.translator.parameters(), without.translator.parameters(), strict=True
    ):
        assert torch.equal(a, b)


def test_resumed_trial_does_not_repeat_the_untrained_grid(tmp_path):
    first = trial_of(plan_of(tmp_path))
    next(first.evaluations())
    grid = tmp_path / "images-00000000.png"
    grid.write_bytes(b"as it was")
    list(trial_of(plan_of(tmp_path)).evaluations())

    assert grid.read_bytes() == b"as it was"


def test_evaluation_says_what_the_worker_has_used(tmp_path):
    first, second, _ = trial_of(plan_of(tmp_path)).evaluations()

    for evaluation in (first, second):
        assert set(evaluation.system) == {"worker_cpu_percent", "worker_memory_megabytes"}
        assert 0 < evaluation.system["worker_cpu_percent"] < 10_000
        assert 50 < evaluation.system["worker_memory_megabytes"] < 100_000


def test_initialization_sees_different_frames_from_the_whole_shard(tmp_path):
    trial = trial_of(plan_of(tmp_path, "improved_gan"))
    rgb, _ = data_of().paired

    assert torch.equal(trial.translator.generator.reference_rgb, rgb.take([0, 12, 23]))


def test_unknown_parameters_are_refused(tmp_path):
    with pytest.raises(SearchError, match="Unknown parameters of pix2pix: speed"):
        trial_of(plan_of(tmp_path, parameters={"speed": 1}))


def train_on_rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.set_num_threads(1)
    group, trained = WorkerGroup(), {}
    for architecture in sorted(ARCHITECTURES):
        plan = plan_of(Path(folder) / architecture, architecture, images=48, evaluate_every=16)
        first = trial_of(plan, group, rank, 2)
        next(first.evaluations())
        second = trial_of(plan, group, rank, 2)
        list(second.evaluations())
        # The generator is the same on both workers, buffers included.
        weights = second.translator.generator.state_dict().values()
        total = sum(value.double().sum().item() for value in weights)
        trained[architecture] = [results(second.history), total]
    Path(folder, f"rank-{rank}.json").write_text(json.dumps(trained))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def trained_by_two(tmp_path_factory):
    """By rank and architecture: the results and the weights' sum of a trial that resumed once."""
    folder = tmp_path_factory.mktemp("two")
    run_two_workers(train_on_rank, str(folder))
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_two_workers_train_one_generator_and_resume(trained_by_two, architecture):
    one, two = (trained[architecture] for trained in trained_by_two)

    assert one == two
    assert [item[0] for item in one[0]] == [16, 32, 48]


STILLS = random_frames(11, 1, 5)
"""Thermal training frames without an RGB partner."""


def evaluate_on_rank(rank, folder, shards):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    data = data_of(rank, 2, shards)
    evaluator = evaluator_of(data, WorkerGroup())
    result = evaluator.evaluate(untrained_translator(), Path(folder) / "two.png")
    rgb, paired = data.paired
    stills = STILLS.slice(*((0, 4), (4, 11))[rank])
    baselines = measure_baselines(evaluator, [paired, stills], rgb)
    Path(folder, f"rank-{rank}.json").write_text(json.dumps([result.metrics, baselines]))
    dist.destroy_process_group()


# With few validation frames, the second worker has none at all.
@pytest.mark.parametrize("shards", [((0, 16), (16, 40)), ((0, 40), (40, 40))])
def test_two_workers_evaluate_as_one_does(tmp_path, shards):
    run_two_workers(evaluate_on_rank, str(tmp_path), shards)
    data = data_of()
    evaluator = evaluator_of(data, WorkerGroup())
    one = evaluator.evaluate(untrained_translator(), tmp_path / "one.png")
    two = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1)]

    assert two[0] == two[1]
    metrics, two_baselines = two[0]
    suffixed = {f"{name}_efficientnet_lite0" for name in ("kid", "kid_std", "inception_score")}
    plain = {METRIC, f"{METRIC}_infinity", "l1", "psnr", "ssim"}
    assert set(metrics) == plain | suffixed
    assert metrics == pytest.approx(one.metrics, rel=1e-6)
    rgb, paired = data.paired
    baselines = measure_baselines(evaluator, [paired, STILLS], rgb)
    assert set(two_baselines) == set(baselines)
    for name, baseline in baselines.items():
        assert two_baselines[name] == pytest.approx(baseline, rel=1e-6), name


def test_l1_is_the_mean_absolute_difference_of_the_pixels(tmp_path):
    data, translator = data_of(), untrained_translator()
    validation = data.validation
    rgb, thermal = (kind.take(range(40)).float() for kind in (validation.rgb, validation.thermal))
    translator.translate = lambda batch, z=None: batch[:, :1]
    result = evaluator_of(data, WorkerGroup()).evaluate(translator, tmp_path / "one.png")

    assert result.metrics["l1"] == pytest.approx(
        (rgb[:, :1] - thermal).abs().mean().item(), rel=1e-4
    )


def test_paired_batches_hold_the_same_scenes_mirrored_alike():
    # A frame's brightness is its index; a mark on the left shows whether it is mirrored.
    pixels = np.zeros((10, 3, 8, 8), np.uint8)
    pixels[:] = np.arange(10, dtype=np.uint8)[:, None, None, None] * 20
    pixels[..., 0] += 10
    rgb = Frames([pixels], size=8, channels=3)
    thermal = Frames([pixels[:, :1].copy()], size=8, channels=1)
    batches = PairedBatches(rgb, thermal, batch_size=5, seed=0, device=CPU)
    indices, mirrored = [], set()
    for _ in range(4):
        batch = next(batches)
        assert torch.equal(batch.rgb[:, :1], batch.thermal)
        indices += ((batch.thermal[:, 0, 0, 3] + 1) * 127.5 / 20).round().int().tolist()
        mirrored |= set((batch.thermal[:, 0, 0, 0] > batch.thermal[:, 0, 0, 3]).tolist())

    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]
    assert mirrored == {True, False}


def test_unpaired_batches_draw_every_frame_of_each_kind_once_an_epoch():
    rgb, thermal = random_frames(9, 3, 0), random_frames(6, 1, 0)
    batches = UnpairedBatches(rgb, thermal, batch_size=3, seed=0, device=CPU)
    drawn = [next(batches) for _ in range(6)]

    def distinct(images):
        """However they are mirrored."""
        return {tuple(sorted(image.flatten().tolist())) for image in images}

    assert len(distinct(torch.cat([batch.rgb for batch in drawn[:3]]))) == 9
    assert len(distinct(torch.cat([batch.thermal for batch in drawn[:2]]))) == 6


def test_restored_batches_continue_from_their_position():
    def make():
        return PairedBatches(
            random_frames(9, 3, 0), random_frames(9, 1, 1), batch_size=4, seed=1, device=CPU
        )

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


def test_state_in_a_bucket_is_complete_or_absent(bucket):
    plan = plan_of(bucket / "trial", images=16)
    expected = results(trial_of(plan_of(bucket / "whole", images=16)).evaluations())
    next(trial_of(plan).evaluations())
    # As a worker leaves them that dies while it writes the next state: all files but the commit's.
    torn = checkpoint.pending(plan.folder, 16)
    for name in checkpoint.files_of(checkpoint.latest(plan.folder)):
        (torn / name).write_bytes(b"torn")

    assert checkpoint.latest(plan.folder).name == "state-00000008"
    again = trial_of(plan)
    assert results(again.history) == expected[:1]
    assert results(again.history) + results(again.evaluations()) == expected
    assert checkpoint.latest(plan.folder) == torn
    assert {p.parent.name for p in plan.folder.list(deep=True) if p.name == "shared.pt"} == {
        "state-00000008", "state-00000016"
    }  # fmt: skip


def test_files_of_an_interrupted_attempt_do_not_belong_to_the_state(tmp_path):
    plan = plan_of(tmp_path)
    stale = checkpoint.pending(plan.folder, 8) / "worker-1.pt"
    stale.write_bytes(b"stale")
    next(trial_of(plan).evaluations())

    assert checkpoint.files_of(checkpoint.latest(plan.folder)) == ["shared.pt", "worker-0.pt"]
