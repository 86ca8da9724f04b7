"""Two workers play as one with their joint batch would, where nothing couples its images."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch.overrides import TorchFunctionMode

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.training.step import build_optimizers

WORKERS = 2

# What couples images, or is dropped at random, switched off; batch normalization is judged with.
UNCOUPLED = {
    "biggan": {"microbatch_size": WORKERS * BATCH},
    "cyclegan": {"pool_size": 0},
    "dcgan": {},
    "gan": {"input_dropout": 0.0, "hidden_dropout": 0.0},
    "improved_gan": {"minibatch_discrimination": False, "generator_loss": "adversarial", "dropout": 0.0},
    "pix2pix": {"dropout": 0.0},
    "progressive_gan": {"mbstd_group_size": 1},
    "stylegan": {"style_mixing": 0.0},
    "thermalgan": {"dropout": 0.0},
    "unit": {},
    "wgan": {},
    "wgan_gp": {},
}
COUPLED = {"cgan"}
"""Mismatched pairs are those of a worker's own batch."""


class JointDraws(TorchFunctionMode):
    """Draws for the images of the joint batch; each worker takes what falls to its own."""

    def __init__(self, rank, workers):
        super().__init__()
        self.rank, self.workers = rank, workers

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("generator"):  # the images' own
            return func(*args, **kwargs)
        if func in (torch.rand, torch.randn):
            shape = args[0] if isinstance(args[0], tuple) else args
            return self.deal(func, shape) if shape else func(*args, **kwargs)
        if func in (torch.rand_like, torch.randn_like):
            draw = torch.rand if func is torch.rand_like else torch.randn
            return self.deal(draw, args[0].shape)
        if func is torch.Tensor.normal_:
            return args[0].copy_(self.deal(torch.randn, args[0].shape))
        return func(*args, **kwargs)

    def deal(self, draw, shape):
        # Every second row, so that halves of a worker's batch are of the joint batch's halves.
        return draw((self.workers * shape[0], *shape[1:]))[self.rank :: self.workers]


def gradients(name, group):
    """Terms and gradients of every turn of a step, for this worker's part of the joint batch."""
    torch.manual_seed(0)
    translator = build(name, SIZE, TINY[name] | UNCOUPLED[name])
    translator.init_from_data(next(random_batches(7, batch=8)).rgb)
    for module in translator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    optimizers = build_optimizers(translator)
    translator.begin_step(0, 0 if name == "wgan" else 1000)
    batches = (
        Batch(joint.rgb[group.rank :: group.size], joint.thermal[group.rank :: group.size])
        for joint in random_batches(batch=WORKERS * BATCH)
    )
    found = {}
    with ExitStack() as stack:
        stack.enter_context(JointDraws(group.rank, group.size))
        torch.manual_seed(1)
        for number, turn in enumerate(translator.turns(batches)):
            player_optimizer = optimizers[turn.player]
            player_optimizer.optimizer.zero_grad(set_to_none=True)
            turn.loss.backward(inputs=player_optimizer.parameters)
            terms = torch.stack([term.detach() for term in turn.terms.values()])
            terms = group.average_gradients(player_optimizer.parameters, terms)
            slopes = [p.grad.flatten() for p in player_optimizer.parameters if p.grad is not None]
            found[f"{number} {turn.player}"] = terms, torch.cat(slopes)
            with torch.no_grad():
                # Straight down the slope: Adam would make much of what is only rounding.
                for parameter in player_optimizer.parameters:
                    if parameter.grad is not None:
                        parameter.sub_(0.01 * parameter.grad)
    return found


def play(rank, place):
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/meeting", rank=rank, world_size=WORKERS
    )
    torch.set_num_threads(1)
    group = WorkerGroup()
    found = {name: gradients(name, group) for name in UNCOUPLED}
    if group.is_rank_zero:
        torch.save(found, Path(place, "found.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found_by_two(tmp_path_factory):
    place = tmp_path_factory.mktemp("joint")
    multiprocessing.spawn(play, (str(place),), nprocs=WORKERS)
    return torch.load(place / "found.pt", weights_only=True)


@pytest.mark.parametrize("name", UNCOUPLED)
def test_two_workers_have_the_gradients_of_the_joint_batch(found_by_two, name):
    one, two = gradients(name, WorkerGroup()), found_by_two[name]

    assert one.keys() == two.keys()
    for turn, (terms, slopes) in one.items():
        assert torch.allclose(two[turn][0], terms, rtol=1e-4, atol=1e-5), turn
        largest = slopes.abs().max().item()
        assert torch.allclose(two[turn][1], slopes, rtol=1e-2, atol=1e-3 * largest), turn


def test_every_architecture_is_uncoupled_here_or_said_to_be_coupled():
    assert UNCOUPLED.keys() | COUPLED == ARCHITECTURES.keys()
