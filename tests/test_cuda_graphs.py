"""StepRunner that a GPU replays: what the architectures promise for it, and on a GPU that it holds."""

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
from thermal_search.training.step import build_optimizers, train_step, use_cudnn_benchmark

BUDGET = 1000
GROWN = 900
"""Images after which no network grows any more."""

OF_PASSES = ("training", "has_measured", "references", "measured")
"""What a forward pass of a module leaves to the next, and no step to the next step."""

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(params=sorted(ARCHITECTURES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


class Game:
    """A tiny translator in training."""

    def __init__(
        self, name: str, device: str, *, steps: type = StepRunner, group: WorkerGroup | None = None
    ) -> None:
        torch.manual_seed(0)
        self.device = torch.device(device)
        self.translator = build(name, SIZE, TINY[name]).to(self.device)
        self.translator.init_from_data(next(random_batches()).rgb.to(self.device))
        self.optimizers = build_optimizers(self.translator)
        self.steps = steps(
            self.translator,
            self.optimizers,
            (Batch(b.rgb.to(device), b.thermal.to(device)) for b in random_batches(1)),
            group=group or WorkerGroup(),
            autocast=nullcontext(),
            device=self.device,
        )
        self.images = GROWN
        self.images_a_step = 1
        """Images of the budget that each step counts for."""

    def run(self, count: int, factor: float = 1.0) -> list[dict[str, float]]:
        played = []
        torch.manual_seed(self.images)
        for _ in range(count):
            self.translator.begin_step(self.images, BUDGET)
            for player_optimizer in self.optimizers.values():
                player_optimizer.schedule(factor, 0.5)
            losses = self.steps.run()
            played.append({key: value.item() for key, value in losses.items()})
            self.images += self.images_a_step
        return played


class Unrecorded(StepRunner):
    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.use_cuda_graphs = False


def test_turns_leave_what_is_counted_on_the_host_alone(name):
    translator = build(name, SIZE, TINY[name])
    translator.init_from_data(next(random_batches()).rgb)
    optimizers = build_optimizers(translator)

    def host_state() -> dict:
        plain = (bool, int, float, str, tuple)
        return {
            (path, key): value
            for path, module in translator.named_modules()
            for key, value in vars(module).items()
            if isinstance(value, plain) and key not in OF_PASSES
        }

    translator.begin_step(GROWN, BUDGET)
    before, pattern = host_state(), translator.graph_key()
    train_step(
        translator, optimizers, random_batches(), group=WorkerGroup(), autocast=nullcontext()
    )

    assert host_state() == before
    assert translator.graph_key() == pattern


def test_steps_of_equal_patterns_draw_as_much_and_move_as_often(name):
    translator = build(name, SIZE, TINY[name])
    translator.init_from_data(next(random_batches()).rgb)
    kinds: dict = {}
    for step in range(12):
        translator.begin_step(GROWN + step, BUDGET)
        drawn = 0

        def counted():
            nonlocal drawn
            for batch in random_batches():
                drawn += 1
                yield batch

        moves = [(turn.player, *turn.terms) for turn in translator.turns(counted())]
        kinds.setdefault(translator.graph_key(), set()).add((drawn, *moves))

    assert all(len(found) == 1 for found in kinds.values())


@pytest.fixture(params=["progressive_gan", "stylegan"])
def growing(request: pytest.FixtureRequest) -> str:
    return request.param


def test_steps_of_one_resolution_differ_only_in_whether_they_fade(growing):
    translator = build(growing, SIZE, TINY[growing])
    kinds = set()
    for images in range(0, BUDGET, 10):
        translator.begin_step(images, BUDGET)
        growth = translator.discriminator.growth
        kinds.add((growth.resolution, growth.alpha < 1, translator.graph_key()))

    stages = {(resolution, fades) for resolution, fades, _ in kinds}
    assert len({pattern for *_, pattern in kinds}) == len(kinds) == len(stages)
    assert {fades for _, fades in stages} == {True, False}


def test_how_far_new_layers_count_is_read_from_the_device(growing):
    translator = build(growing, SIZE, TINY[growing]).eval()
    batch = next(random_batches())
    rgb, thermal = batch.rgb, batch.thermal
    z = translator.draw_latent(len(rgb))

    def seen(alpha: float, of_device: float) -> list[torch.Tensor]:
        for network in (translator.generator, translator.discriminator):
            network.growth = Growth(SIZE, alpha)
            network.alpha.fill_(of_device)
        evaluator = translator.discriminator
        return [
            translator.generator(rgb, z),
            discriminator.downsample(thermal),
            evaluator(rgb, thermal),
        ]

    for one, other, third in zip(seen(0.5, 0.5), seen(0.5, 0.9), seen(0.9, 0.9), strict=True):
        assert torch.equal(other, third)
        assert not torch.equal(one, other)


def test_an_optimizer_of_a_gpu_goes_on_on_a_cpu(name):
    # There its learning rate is a tensor, which a recorded step reads from the device.
    written, goes_on = Game(name, "cpu"), Game(name, "cpu")
    written.run(2)
    goes_on.translator.load_state_dict(written.translator.state_dict())
    for player_optimizer, other in zip(
        written.optimizers.values(), goes_on.optimizers.values(), strict=True
    ):
        state = copy.deepcopy(player_optimizer.optimizer.state_dict())
        for group in state["param_groups"]:
            group["lr"] = torch.tensor(group["lr"])
            if "capturable" in group:
                group["capturable"] = True
        other.restore(state)

    goes_on.images = written.images
    written.steps.batches = random_batches(2)
    expected = written.run(1)
    goes_on.steps.batches = random_batches(2)
    assert goes_on.run(1) == expected


@pytest.mark.gpu
@on_gpu
def test_replayed_steps_are_the_steps_that_would_be_played(name):
    # Dropout, latents and pools go on drawing where a played step would have left them.
    recorded, played = Game(name, "cuda"), Game(name, "cuda", steps=Unrecorded)
    # Few: a game makes much of the last bit of a sum, which a GPU adds up in any order.
    count = WARMUP_STEPS + 3
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        ours, expected = recorded.run(count), played.run(count)

    assert recorded.steps.graphs, "not recorded"
    for one, other in zip(ours, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3)
    a, b = (torch.cat([p.flatten() for p in g.translator.parameters()]) for g in (recorded, played))
    assert (a - b).abs().mean() < 0.05 * a.abs().mean()


@pytest.mark.gpu
@on_gpu
def test_a_replayed_step_fades_as_far_as_growth_has_come(growing):
    recorded, played = Game(growing, "cuda"), Game(growing, "cuda", steps=Unrecorded)
    for game in (recorded, played):
        # The last doubling fades in from 542 of the budget's 1000 images to 650.
        game.images, game.images_a_step = 550, 12
    count = WARMUP_STEPS + 4
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        ours, expected = recorded.run(count), played.run(count)

    assert recorded.steps.graphs, "not recorded"
    assert 0 < recorded.translator.discriminator.growth.alpha < 1
    for one, other in zip(ours, expected, strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-3)


@pytest.mark.gpu
@on_gpu
def test_what_workers_agree_on_by_nccl_is_recorded_too(tmp_path):
    place = f"file://{tmp_path / 'meet'}"
    dist.init_process_group("nccl", init_method=place, rank=0, world_size=1)
    try:
        group = WorkerGroup()
        group.size = 2  # a fellow who never adds anything: the exchange is real
        recorded = Game("pix2pix", "cuda", group=group)
        played = Game("pix2pix", "cuda", group=group, steps=Unrecorded)
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            ours, expected = recorded.run(WARMUP_STEPS + 4), played.run(WARMUP_STEPS + 4)
    finally:
        dist.destroy_process_group()

    assert recorded.steps.graphs
    assert ours[-1] == pytest.approx(expected[-1], rel=2e-2, abs=2e-3)


@pytest.mark.gpu
@on_gpu
def test_a_replayed_step_follows_the_learning_rate(name):
    game = Game(name, "cuda")
    game.run(WARMUP_STEPS * 4 + 1)
    assert game.steps.graphs
    before = [p.detach().clone() for p in game.translator.parameters()]
    game.run(1, factor=0.0)
    assert all(torch.equal(p, q) for p, q in zip(game.translator.parameters(), before, strict=True))
    game.run(1)
    assert not all(
        torch.equal(p, q) for p, q in zip(game.translator.parameters(), before, strict=True)
    )


@pytest.mark.gpu
@on_gpu
def test_replayed_steps_draw_new_batches_and_new_noise():
    game = Game("pix2pix", "cuda")
    losses = game.run(WARMUP_STEPS + 6)

    assert len(game.steps.graphs) == 1
    assert len({step["generator/l1"] for step in losses}) == len(losses)


@pytest.mark.gpu
@on_gpu
def test_what_cannot_be_recorded_is_played(caplog):
    game = Game("pix2pix", "cuda")
    honest = game.translator.turns

    def waits(batches):
        for turn in honest(batches):
            turn.loss.item()
            yield turn

    game.translator.turns = waits
    losses = game.run(WARMUP_STEPS + 3)

    assert not game.steps.graphs
    assert len({step["generator/l1"] for step in losses}) == WARMUP_STEPS + 3
    assert "is played without recording" in caplog.text


def test_cudnn_tries_algorithms_on_a_gpu_where_shapes_stay():
    grown, fixed = (build(name, SIZE, TINY[name]) for name in ("progressive_gan", "pix2pix"))

    assert use_cudnn_benchmark(fixed, torch.device("cuda"))
    assert not use_cudnn_benchmark(fixed, torch.device("cpu"))
    assert not use_cudnn_benchmark(grown, torch.device("cuda"))
