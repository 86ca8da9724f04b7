"""The workers of a slot, when one of them is gone."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from thermal_search.distributed.worker_group import WorkerGroup, WorkerLost, keep_to_loopback


def test_a_worker_that_is_left_alone_knows_it_by_name(tmp_path):
    """Whatever it asks of the group: a lost worker is no fault of the trial."""
    context = multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    workers = [context.Process(target=work, args=(n, str(tmp_path / "meet"), told)) for n in (0, 1)]
    for worker in workers:
        worker.start()
    found = told.get()
    for worker in workers:
        worker.join(60)
    assert found == dict.fromkeys(("ask", "wait", "sum", "gradients", "start", "measured"), True)


def work(rank, meeting_place, told):
    keep_to_loopback()
    dist.init_process_group("gloo", f"file://{meeting_place}", rank=rank, world_size=2)
    group = WorkerGroup()
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    actions = {
        "ask": lambda: group.broadcast_object(lambda: "on"),
        "wait": group.wait,
        "sum": lambda: group.sum(torch.ones(3)),
        "gradients": lambda: group.average_gradients([*network.parameters()], torch.ones(2)),
        "start": lambda: group.broadcast_parameters(network),
        "measured": lambda: group.average_running_stats(network),
    }
    for action in actions.values():  # while both are there
        action()
    if rank == 1:
        os._exit(0)
    told.put({name: loses_its_fellow(action) for name, action in actions.items()})
    os._exit(0)


def loses_its_fellow(action):
    try:
        action()
    except WorkerLost:
        return True
    return False
