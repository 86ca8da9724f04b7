"""Two workers compute the gradients of one worker with their joint batch, if nothing couples the
images of a batch."""

from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tiny_settings import BATCH, SIZE, TINY, random_batches
from torch.overrides import TorchFunctionMode
from two_workers import run_two_workers

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch
from thermal_search.training.optimizers import build_optimizers

WORKERS = 2

# Without what couples images and without dropout; batch normalization is in evaluation mode.
UNCOUPLED = {
    "biggan": {"microbatch_size": WORKERS * BATCH},
    "cyclegan": {"pool_size": 0},
    "dcgan": {},
    "gan": {"input_dropout": 0.0, "hidden_dropout": 0.0},
    "improved_gan": {
        "minibatch_discrimination": False,
        "generator_loss": "adversarial",
        "dropout": 0.0,
    },
    "pix2pix": {"dropout": 0.0},
    "progressive_gan": {"mbstd_group_size": 1},
    "stylegan": {"style_mixing_probability": 0.0},
    "thermalgan": {"dropout": 0.0},
    "unit": {},
    "wgan": {},
    "wgan_gp": {},
}
COUPLED = {"cgan"}
"""Its mismatched pairs are formed within the batch of each worker."""


class JointDraws(TorchFunctionMode):
    """Makes random draws for the images of the joint batch and returns those of this worker."""

    def __init__(self, rank, workers):
        super().__init__()
        self.rank, self.workers = rank, workers

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if kwargs.get("generator"):  # draws of `random_batches`
            return func(*args, **kwargs)
        if func in (torch.rand, torch.randn):
            shape = args[0] if isinstance(args[0], tuple) else args
            return self.own_rows(func, shape) if shape else func(*args, **kwargs)
        if func in (torch.rand_like, torch.randn_like):
            draw = torch.rand if func is torch.rand_like else torch.randn
            return self.own_rows(draw, args[0].shape)
        if func is torch.Tensor.normal_:
            return args[0].copy_(self.own_rows(torch.randn, args[0].shape))
        return func(*args, **kwargs)

    def own_rows(self, draw, shape):
        # Every second row: the halves of a worker's batch then come from the joint batch's halves.
        return draw((self.workers * shape[0], *shape[1:]))[self.rank :: self.workers]


def step_gradients(name, group):
    """Terms and gradients by turn of one step, averaged over the workers.

    Each worker takes its rows of the joint batch.
    """
    torch.manual_seed(0)
    translator = build(name, SIZE, TINY[name] | UNCOUPLED[name])
    translator.init_from_data(next(random_batches(7, batch=8)))
    for module in translator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    optimizers = build_optimizers(translator)
    translator.begin_step(0, 0 if name == "wgan" else 1000)
    batches = (
        Batch(joint.rgb[group.rank :: group.size], joint.thermal[group.rank :: group.size])
        for joint in random_batches(batch=WORKERS * BATCH)
    )
    results = {}
    with ExitStack() as stack:
        stack.enter_context(JointDraws(group.rank, group.size))
        torch.manual_seed(1)
        for number, turn in enumerate(translator.turns(batches)):
            player_optimizer = optimizers[turn.player]
            player_optimizer.optimizer.zero_grad(set_to_none=True)
            turn.loss.backward(inputs=player_optimizer.parameters)
            terms = torch.stack([term.detach() for term in turn.terms.values()])
            terms = group.average_gradients(player_optimizer.parameters, terms)
            gradients = [p.grad for p in player_optimizer.parameters if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            results[f"{number} {turn.player}"] = terms, flat
            with torch.no_grad():
                # Gradient descent: Adam would amplify rounding errors of small gradients.
                for parameter in player_optimizer.parameters:
                    if parameter.grad is not None:
                        parameter.sub_(0.01 * parameter.grad)
    return results


def run_worker(rank, folder):
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS
    )
    torch.set_num_threads(1)
    group = WorkerGroup()
    results = {name: step_gradients(name, group) for name in UNCOUPLED}
    if group.is_rank_zero:
        torch.save(results, Path(folder, "results.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results_of_two_workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint")
    run_two_workers(run_worker, str(folder))
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.parametrize("name", UNCOUPLED)
def test_two_workers_compute_the_gradients_of_the_joint_batch(results_of_two_workers, name):
    one, two = step_gradients(name, WorkerGroup()), results_of_two_workers[name]

    assert one.keys() == two.keys()
    for turn, (terms, gradients) in one.items():
        assert torch.allclose(two[turn][0], terms, rtol=1e-4, atol=1e-5), turn
        largest = gradients.abs().max().item()
        assert torch.allclose(two[turn][1], gradients, rtol=1e-2, atol=1e-3 * largest), turn


def test_every_architecture_is_tested_or_listed_as_coupled():
    assert UNCOUPLED.keys() | COUPLED == ARCHITECTURES.keys()
