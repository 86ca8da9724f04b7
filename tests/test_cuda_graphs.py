"""CUDA graphs of training steps: what every architecture must guarantee, and replay on a GPU."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.distributed as dist
from tiny_settings import SIZE, TINY, random_batches

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.networks.progressive import Growth
from thermal_search.training.cuda_graphs import WARMUP_STEPS, StepRunner
from thermal_search.training.hardware import use_cudnn_benchmark
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step

BUDGET = 1000
FULLY_GROWN = 900
"""Images shown after which progressive growing has ended."""

SET_IN_FORWARD = ("training", "has_reference_stats", "reference_count", "reference_stats")
"""Attributes that a forward pass sets for the next one within the same step."""

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=sorted(ARCHITECTURES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class Training:
    """A tiny translator in training."""

    def __init__(
        self, name: str, device: str, *, runner: type = StepRunner, group: WorkerGroup | None = None
    ) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.translator = build(name, SIZE, TINY[name]).to(self.device)
        batch = next(random_batches())
        self.translator.init_from_data(Batch(batch.rgb.to(device), batch.thermal.to(device)))
        self.optimizers = build_optimizers(self.translator)
        self.runner = runner(
            self.translator,
            self.optimizers,
            (Batch(b.rgb.to(device), b.thermal.to(device)) for b in random_batches(1)),
            group=group or WorkerGroup(),
            autocast=nullcontext(),
            device=self.device,
        )
        self.images = FULLY_GROWN
        self.images_per_step = 1

    def run(self, count: int, factor: float = 1.0) -> list[dict[str, float]]:
        history = []
        torch.manual_seed(self.images)
        for _ in range(count):
            self.translator.begin_step(self.images, BUDGET)
            for player_optimizer in self.optimizers.values():
                player_optimizer.schedule(factor, 0.5)
            losses = self.runner.run()
            history.append({key: value.item() for key, value in losses.items()})
            self.images += self.images_per_step
        return history


class EagerRunner(StepRunner):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.use_cuda_graphs = False


def test_turns_change_no_state_on_the_host(name):
    translator = build(name, SIZE, TINY[name])
    translator.init_from_data(next(random_batches()))
    optimizers = build_optimizers(translator)

    def host_state() -> dict:
        plain = (bool, int, float, str, tuple)
        return {
            (path, key): value
            for path, module in translator.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, plain) and key not in SET_IN_FORWARD
        }

    translator.begin_step(FULLY_GROWN, BUDGET)
    before, graph_key = host_state(), translator.graph_key()
    train_step(
        translator, optimizers, random_batches(), group=WorkerGroup(), autocast=nullcontext()
    )

    assert host_state() == before
    assert translator.graph_key() == graph_key


def test_steps_with_equal_graph_keys_draw_the_same_batches_and_take_the_same_turns(name):
    translator = build(name, SIZE, TINY[name])
    translator.init_from_data(next(random_batches()))
    steps: dict = {}
    for step in range(12):
        translator.begin_step(FULLY_GROWN + step, BUDGET)
        count = 0

        def counted():
            nonlocal count
            for batch in random_batches():
                count += 1
                yield batch

        turns = [(turn.player, *turn.terms) for turn in translator.turns(counted())]
        steps.setdefault(translator.graph_key(), set()).add((count, *turns))

    assert all(len(different) == 1 for different in steps.values())


@pytest.fixture(params=["progressive_gan", "stylegan"])
def growing(request: pytest.FixtureRequest) -> str:
    return request.param


def test_graph_key_of_a_growing_network_is_resolution_and_fading(growing):
    translator = build(growing, SIZE, TINY[growing])
    observed = set()
    for images in range(0, BUDGET, 10):
        translator.begin_step(images, BUDGET)
        growth = translator.discriminator.growth
        observed.add((growth.resolution, growth.alpha < 1, translator.graph_key()))

    stages = {(resolution, is_fading) for resolution, is_fading, _ in observed}
    assert len({graph_key for *_, graph_key in observed}) == len(observed) == len(stages)
    assert {is_fading for _, is_fading in stages} == {True, False}


def test_steps_with_equal_graph_keys_have_equal_batch_sizes(growing):
    translator, sizes = build(growing, SIZE, TINY[growing]), {}
    for images in range(0, BUDGET, 10):
        translator.begin_step(images, BUDGET)
        size = translator.config.batch_size_at(images / BUDGET)
        sizes.setdefault(translator.graph_key(), set()).add(size)

    assert all(len(of_key) == 1 for of_key in sizes.values())
    assert {size for of_key in sizes.values() for size in of_key} == {8, 4}


def test_alpha_is_read_from_the_device(growing):
    translator = build(growing, SIZE, TINY[growing]).eval()
    batch = next(random_batches())
    rgb, thermal = batch.rgb, batch.thermal
    z = translator.draw_latent(len(rgb))

    def outputs(alpha: float, device_alpha: float) -> list[torch.Tensor]:
        generator, discriminator = translator.generator, translator.discriminator
        for network in (generator, discriminator):
            network.growth = Growth(SIZE, alpha)
            network.alpha.fill_(device_alpha)
        return [generator(rgb, z), discriminator.downsample(thermal), discriminator(rgb, thermal)]

    before, changed_on_device, expected = (
        outputs(0.5, 0.5),
        outputs(0.5, 0.9),
        outputs(0.9, 0.9),
    )
    for one, other, third in zip(before, changed_on_device, expected, strict=True):
        assert torch.equal(other, third)
        assert not torch.equal(one, other)


def test_optimizer_saved_on_a_gpu_resumes_on_a_cpu(name):
    # On a GPU the learning rate is a tensor, which a CUDA graph reads from the device.
    saved, resumed = Training(name, "cpu"), Training(name, "cpu")
    saved.run(2)
    resumed.translator.load_state_dict(saved.translator.state_dict())
    for player_optimizer, other in zip(
        saved.optimizers.values(), resumed.optimizers.values(), strict=True
    ):
        state = copy.deepcopy(player_optimizer.optimizer.state_dict())
        for group in state["param_groups"]:
            group["lr"] = torch.tensor(group["lr"])
            if "capturable" in group:
                group["capturable"] = True
        other.restore(state)

    resumed.images = saved.images
    saved.runner.batches = random_batches(2)
    expected = saved.run(1)
    resumed.runner.batches = random_batches(2)
    assert resumed.run(1) == expected


def assert_close(losses: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    # A GPU adds in no fixed order, and an adversarial game amplifies the rounding errors.
    for one, other in zip(losses, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3)


@pytest.mark.gpu
@on_gpu
def test_replayed_steps_equal_eager_steps(name):
    # Dropout, latents and image pools must draw the same random numbers as in eager steps.
    graphed, eager = Training(name, "cuda"), Training(name, "cuda", runner=EagerRunner)
    # Few steps, because the differences grow.
    count = WARMUP_STEPS + 3
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        losses, expected = graphed.run(count), eager.run(count)

    assert graphed.runner.graphs, "no graph was captured"
    assert_close(losses, expected)
    a, b = (torch.cat([p.flatten() for p in t.translator.parameters()]) for t in (graphed, eager))
    assert (a - b).abs().mean() < 0.05 * a.abs().mean()


@pytest.mark.gpu
@on_gpu
def test_replayed_steps_follow_alpha(growing):
    graphed, eager = Training(growing, "cuda"), Training(growing, "cuda", runner=EagerRunner)
    for training in (graphed, eager):
        # The last doubling fades in from 542 to 650 of the budget's 1000 images.
        training.images, training.images_per_step = 550, 12
    count = WARMUP_STEPS + 4
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        losses, expected = graphed.run(count), eager.run(count)

    assert graphed.runner.graphs, "no graph was captured"
    assert 0 < graphed.translator.discriminator.growth.alpha < 1
    assert_close(losses, expected)


@pytest.mark.gpu
@on_gpu
def test_nccl_gradient_averaging_is_captured_too(tmp_path):
    address = f"file://{tmp_path / 'rendezvous'}"
    dist.init_process_group("nccl", init_method=address, rank=0, world_size=1)
    try:
        group = WorkerGroup()
        # One process that believes in a second worker: NCCL runs, and adds nothing.
        group.size = 2
        graphed = Training("pix2pix", "cuda", group=group)
        eager = Training("pix2pix", "cuda", group=group, runner=EagerRunner)
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            losses, expected = graphed.run(WARMUP_STEPS + 4), eager.run(WARMUP_STEPS + 4)
    finally:
        dist.destroy_process_group()

    assert graphed.runner.graphs
    assert_close(losses[-1:], expected[-1:])


@pytest.mark.gpu
@on_gpu
def test_replayed_steps_follow_the_learning_rate(name):
    training = Training(name, "cuda")
    training.run(WARMUP_STEPS * 4 + 1)
    assert training.runner.graphs
    before = [p.detach().clone() for p in training.translator.parameters()]
    training.run(1, factor=0.0)
    assert all(
        torch.equal(p, q) for p, q in zip(training.translator.parameters(), before, strict=True)
    )
    training.run(1)
    assert not all(
        torch.equal(p, q) for p, q in zip(training.translator.parameters(), before, strict=True)
    )


@pytest.mark.gpu
@on_gpu
def test_replayed_steps_use_new_batches_and_new_noise():
    training = Training("pix2pix", "cuda")
    losses = training.run(WARMUP_STEPS + 6)

    assert len(training.runner.graphs) == 1
    assert len({step["generator/l1"] for step in losses}) == len(losses)


@pytest.mark.gpu
@on_gpu
def test_step_that_cannot_be_captured_runs_eagerly(caplog):
    training = Training("pix2pix", "cuda")
    turns = training.translator.turns

    def synchronizing_turns(batches):
        for turn in turns(batches):
            turn.loss.item()
            yield turn

    training.translator.turns = synchronizing_turns
    losses = training.run(WARMUP_STEPS + 3)

    assert not training.runner.graphs
    assert len({step["generator/l1"] for step in losses}) == WARMUP_STEPS + 3
    logged = [record.levelname for record in caplog.records if record.name == StepRunner.__module__]
    assert logged == ["WARNING"]


def test_cudnn_benchmark_is_on_for_fixed_shapes_on_a_gpu():
    growing, fixed = (build(name, SIZE, TINY[name]) for name in ("progressive_gan", "pix2pix"))

    assert use_cudnn_benchmark(fixed, torch.device("cuda"))
    assert not use_cudnn_benchmark(fixed, torch.device("cpu"))
    assert not use_cudnn_benchmark(growing, torch.device("cuda"))
