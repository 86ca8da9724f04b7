"""Workers on a Ray cluster: Ray Data passes the images to a pool of actors that hold generators.

The actors read and write the files themselves: all machines must reach model, input and output.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import ray
import ray.data
import torch
from ray.data import ActorPoolStrategy

from thermal_search import local_ray
from thermal_search.errors import DatasetError, ThermalSearchError
from thermal_search.translation.sources import Job
from thermal_search.translation.worker import BATCH, Outcome, Request, Worker

IMAGES_PER_BLOCK = 4 * BATCH
"""An actor's threads start afresh with each block: fewer images would leave it idle too often."""

Rows = dict[str, Any]


def translate_on_cluster(
    request: Request, jobs: Sequence[Job], address: str, workers: int | None
) -> Iterator[Outcome]:
    """The outcomes of all jobs, as they come.

    `workers` is the size of the pool; None: one actor per GPU of the cluster, or per core if it has
    no GPU. Raises SearchError if no cluster answers, DatasetError if a worker fails.
    """
    _connect(address)
    resources = ray.cluster_resources()
    has_gpus = resources.get("GPU", 0) >= 1
    count = workers or max(int(resources.get("GPU" if has_gpus else "CPU", 1)), 1)
    blocks = math.ceil(len(jobs) / IMAGES_PER_BLOCK)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [{"item": job} for job in jobs]
    outcomes = ray.data.from_items(rows, override_num_blocks=max(blocks, 1)).map_batches(
        _Actor,
        fn_constructor_args=(request,),
        batch_size=IMAGES_PER_BLOCK,
        compute=ActorPoolStrategy(min_size=1, max_size=min(count, max(blocks, 1))),
        num_gpus=1 if has_gpus else 0,
        num_cpus=0 if has_gpus else 1,
    )
    for row in outcomes.iter_rows():
        outcome: Outcome | DatasetError = row["item"]
        if isinstance(outcome, DatasetError):
            raise outcome
        yield outcome


def _connect(address: str) -> None:
    if ray.is_initialized():
        return
    if address == "local":
        local_ray.start(log_to_driver=False)
    else:
        local_ray.connect(address, log_to_driver=False)


class _Actor:
    """Holds a generator, and translates one batch of jobs after another."""

    def __init__(self, request: Request) -> None:
        self.worker: Worker | None = None
        self.request = request

    def __call__(self, batch: Rows) -> Rows:
        # An error for users is a row: Ray would wrap an exception, and try again.
        try:
            if self.worker is None:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                self.worker = Worker(self.request, device)
            outcomes: list[Outcome | DatasetError] = [*self.worker.translate_images(batch["item"])]
        except ThermalSearchError as error:
            outcomes = [DatasetError(str(error))]
        return {"item": outcomes}
