"""Maps a function over items, in order: in this process, in several, or on a Ray cluster.

The number of items in flight is bounded, however many items there are.
"""

import contextlib
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Protocol, TypeVar

from thermal_search import local_ray
from thermal_search.errors import DatasetError
from thermal_search.socket_folder import temporary_folder_for

Item = TypeVar("Item")
Result = TypeVar("Result")

SERVER_SOCKET = "pymp-12345678/listener-12345678"
"""The path of the fork server's socket, in a temporary folder."""

QUEUED_PER_PROCESS = 2
"""Items that wait for each process, so that it never idles."""


class Pool(Protocol):
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in the order of the items. Raises the first DatasetError."""
        ...


@contextlib.contextmanager
def open_pool(processes: int | None, address: str | None) -> Generator[Pool]:
    """A pool of `processes` (None: one per core), or with `address` all cores of a Ray cluster.

    A single process is this one, which needs no start.
    """
    if address:
        yield _RayPool(address)
        return
    count = processes or os.cpu_count() or 1
    if count == 1:
        yield _SerialPool()
        return
    # A fork of a server that has imported everything starts at once and shares its memory.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thermal_search.preparation.shards"])
    with temporary_folder_for(SERVER_SOCKET):
        forkserver.ensure_running()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_init_worker)
    try:
        yield _ProcessPool(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)


class _SerialPool:
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return (_result(_attempt(function, item)) for item in items)


class _ProcessPool:
    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self.pool, self.count = pool, count

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        waiting: deque[Future[Result | DatasetError]] = deque()
        try:
            for item in items:
                waiting.append(self.pool.submit(_attempt, function, item))
                if len(waiting) > QUEUED_PER_PROCESS * self.count:
                    yield _result(waiting.popleft().result())
            while waiting:
                yield _result(waiting.popleft().result())
        except BrokenProcessPool:
            raise DatasetError(
                "A worker process was killed, perhaps because memory ran out: pass fewer "
                "--workers; the same command resumes the preparation."
            ) from None


class _RayPool:
    def __init__(self, address: str) -> None:
        import ray

        if ray.is_initialized():
            return
        if address == "local":
            local_ray.start(log_to_driver=False)
        else:
            local_ray.connect(address, log_to_driver=False)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        rows = [{"item": item} for item in items]
        if not rows:
            return
        work = partial(_attempt_row, function)
        # One block per item: each is seconds of work, and runs on whichever core is free.
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(work)
        for row in results.iter_rows():
            yield _result(row["result"])


def _attempt_row(function: Callable[[Item], Result], row: dict[str, Item]) -> dict[str, object]:
    return {"result": _attempt(function, row["item"])}


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | DatasetError:
    # An error for users is a result: every kind of pool brings it back in the same way.
    try:
        return function(item)
    except DatasetError as error:
        return error
    except OSError as error:
        return DatasetError(
            f"{error.filename or 'The dataset'} cannot be written ({error.strerror or error}): "
            "free some space, or fix it; the same command resumes the preparation."
        )


def _result(result: Result | DatasetError) -> Result:
    if isinstance(result, DatasetError):
        raise result
    return result


def _init_worker() -> None:
    """One thread per process; the process exits with its parent, even if that is killed."""
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
