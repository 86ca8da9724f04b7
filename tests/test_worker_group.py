"""A worker group of two, one of which dies."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from thermal_search.distributed.worker_group import WorkerGroup, WorkerLost, keep_to_loopback

COLLECTIVES = {
    "broadcast_object": lambda group, network: group.broadcast_object(lambda: "on"),
    "barrier": lambda group, network: group.barrier(),
    "sum": lambda group, network: group.sum(torch.ones(3)),
    "average_gradients": lambda group, network: group.average_gradients(
        [*network.parameters()], torch.ones(2)
    ),
    "broadcast_parameters": lambda group, network: group.broadcast_parameters(network),
    "average_running_stats": lambda group, network: group.average_running_stats(network),
}


def test_every_collective_raises_worker_lost_once_the_other_worker_is_gone(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    workers = [
        context.Process(target=run_worker, args=(rank, str(tmp_path / "store"), queue))
        for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    raised = queue.get()
    for worker in workers:
        worker.join(60)
    assert raised == dict.fromkeys(COLLECTIVES, True)


def run_worker(rank, store, queue):
    keep_to_loopback()
    dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    group = WorkerGroup()
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    for collective in COLLECTIVES.values():  # while both workers are alive
        collective(group, network)
    if rank == 1:
        os._exit(0)
    queue.put({name: raises_worker_lost(c, group, network) for name, c in COLLECTIVES.items()})
    os._exit(0)


def raises_worker_lost(collective, group, network):
    try:
        collective(group, network)
    except WorkerLost:
        return True
    return False
