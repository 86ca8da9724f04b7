"""This process, many of this machine, or a Ray cluster's, mapping a function over items in order.

What is in flight is bounded, however many items there are.
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
from multiprocessing.connection import wait
from typing import Protocol, TypeVar

from thermal_search import local_ray
from thermal_search.errors import DatasetError

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD = 2
"""Items a process has waiting, so that it never idles."""


class Workers(Protocol):
    def map(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Iterator[Result]: ...


@contextlib.contextmanager
def open_pool(processes: int | None, address: str | None) -> Generator[Workers]:
    """One process a core of this machine, or with `address` all cores of a Ray cluster.

    One alone is this one: it starts at once.
    """
    if address:
        yield _Cluster(address)
        return
    count = processes or os.cpu_count() or 1
    if count == 1:
        yield _Here()
        return
    # A fork of a server that has imported everything starts in no time and shares its memory.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thermal_search.preparation.shards"])
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_settle)
    try:
        yield _Processes(pool, count)
    finally:
        pool.shutdown(cancel_futures=True)


class _Here:
    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        return (_or_raise(_told(function, item)) for item in items)


class _Processes:
    def __init__(self, pool: ProcessPoolExecutor, count: int) -> None:
        self.pool, self.count = pool, count

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        waiting: deque[Future[Result | DatasetError]] = deque()
        try:
            for item in items:
                waiting.append(self.pool.submit(_told, function, item))
                if len(waiting) > AHEAD * self.count:
                    yield _or_raise(waiting.popleft().result())
            while waiting:
                yield _or_raise(waiting.popleft().result())
        except BrokenProcessPool:
            raise DatasetError(
                "A worker process was killed, perhaps for want of memory: pass fewer --workers. "
                "The same command goes on where it was."
            ) from None


class _Cluster:
    def __init__(self, address: str) -> None:
        import ray

        if ray.is_initialized():
            return
        if address == "local":
            local_ray.start(log_to_driver=False)
        else:
            ray.init(address=address, log_to_driver=False)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        import ray.data

        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        rows = [{"item": item} for item in items]
        if not rows:
            return
        work = partial(_row, function)
        # One block an item: each is seconds of work, and goes to whichever core is free.
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map(work)
        for row in found.iter_rows():
            yield _or_raise(row["result"])


def _row(function: Callable[[Item], Result], row: dict[str, Item]) -> dict[str, object]:
    return {"result": _told(function, row["item"])}


def _told(function: Callable[[Item], Result], item: Item) -> Result | DatasetError:
    # An error for people is a result: it travels home the same way through every kind of worker.
    try:
        return function(item)
    except DatasetError as error:
        return error
    except OSError as error:
        return DatasetError(
            f"{error.filename or 'The dataset'} cannot be written ({error.strerror or error}): "
            "make room, or mend it. The same command goes on where it was."
        )


def _or_raise(result: Result | DatasetError) -> Result:
    if isinstance(result, DatasetError):
        raise result
    return result


def _settle() -> None:
    """One thread a process, and no process outlives the run, even one that was killed."""
    import torch

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()
