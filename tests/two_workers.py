"""Two processes that work as the two workers of a trial."""

from collections.abc import Callable
from typing import Any

import torch.multiprocessing as multiprocessing

multiprocessing.get_context("forkserver").set_forkserver_preload(
    ["thermal_search.training.trial", "thermal_search.preparation.shards"]
)


def run_two_workers(function: Callable[..., None], *arguments: Any) -> None:
    """Calls `function(rank, *arguments)` in two processes; raises what one of them raises.

    They are forks of a server that has imported everything: so they start at once.
    """
    multiprocessing.start_processes(function, arguments, nprocs=2, start_method="forkserver")
