"""Several workers on one machine: one per GPU, or several that share the cores."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from thermal_search.errors import DatasetError, ThermalSearchError
from thermal_search.translation.sources import Job
from thermal_search.translation.worker import Outcome, Request, Worker

Message = Outcome | str | None
"""What a worker sends: an outcome, the sentence of an error, or at its end None."""


def default_workers() -> int:
    """One per GPU; one without a GPU, because it uses all cores."""
    return max(torch.cuda.device_count(), 1)


def device_of(worker: int) -> torch.device:
    """The device of a worker: the GPUs in turn."""
    if torch.cuda.is_available():
        return torch.device("cuda", worker % torch.cuda.device_count())
    return torch.device("cpu")


def translate_in_processes(
    request: Request, jobs: Sequence[Job], workers: int
) -> Iterator[Outcome]:
    """The outcomes of all jobs, as they come. DatasetError if a worker fails or is killed."""
    context = multiprocessing.get_context("spawn")
    connections: dict[Connection, int] = {}
    processes: list[BaseProcess] = []
    try:
        for worker in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            # Every n-th image: neighbors are alike, so that all workers have much the same to do.
            shard = list(jobs[worker::workers])
            process = context.Process(
                target=_run, args=(request, shard, worker, workers, theirs), daemon=True
            )
            process.start()
            theirs.close()
            connections[ours] = worker
            processes.append(process)
        while connections:
            for connection in wait(list(connections)):
                assert isinstance(connection, Connection)
                message = _receive(connection)
                if isinstance(message, Outcome):
                    yield message
                elif message is None:
                    del connections[connection]
                else:
                    raise DatasetError(message)
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join()


def _receive(connection: Connection) -> Message:
    try:
        return connection.recv()
    except EOFError:
        return (
            "A worker process has ended before its images were done, perhaps because memory ran "
            "out: pass fewer --workers; the same command resumes the translation."
        )


def _run(
    request: Request, jobs: Sequence[Job], worker: int, workers: int, connection: Connection
) -> None:
    # Ctrl-C reaches the whole group of processes: the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(max((os.cpu_count() or 1) // workers, 1))
    try:
        for outcome in Worker(request, device_of(worker), workers=workers).translate_images(jobs):
            connection.send(outcome)
        connection.send(None)
    except ThermalSearchError as error:
        connection.send(str(error))
    except BrokenPipeError:
        pass  # The parent has ended.
