"""Between a slot's two ends: Ray Tune hands trials in, Ray Train's workers hand results out."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

import ray

ATTEMPTS_PER_TRIAL = 3
"""Times in a row a trial may lose its workers, without an evaluation between."""

STARTS_PER_SLOT = 3
"""Times in a row a worker group may fail to get ready before the slot gives up."""

Result = dict[str, Any]
Job = dict[str, Any]


@dataclass
class _Running:
    job: Job
    delivered: list[Result] = field(default_factory=list[Result])
    attempts: int = 1


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds the running trial, so that a restarted worker group finds it again.

    A trial's results are numbered by its evaluations. Each is handed to Ray Tune once, however
    often a restarted group repeats it, and the workers wait for Tune's answer: asking for the next
    result means "go on", cancelling means "stop".
    """

    def __init__(self) -> None:
        self.jobs: asyncio.Queue[Job | None] = asyncio.Queue()
        self.results: asyncio.Queue[tuple[str, Result]] = asyncio.Queue()
        self.changed = asyncio.Condition()
        self.running: _Running | None = None
        self.asked: dict[str, int] = {}
        self.cancelled: set[str] = set()
        self.is_closed = False
        self.starts = 0
        self.start_fault = "its workers died before they were ready; the usual cause is memory"

    # Ray Tune's end.

    async def submit(self, job: Job) -> None:
        await self.jobs.put(job)

    async def next_result(self, trial: str) -> Result:
        """The next result of a trial; asking tells its workers to go on."""
        async with self.changed:
            self.asked[trial] = self.asked.get(trial, 0) + 1
            self.changed.notify_all()
        while True:
            owner, result = await self.results.get()
            if owner == trial or result.get("status") == "slot failed":
                return result

    async def cancel(self, trial: str) -> None:
        async with self.changed:
            self.cancelled.add(trial)
            self.changed.notify_all()

    async def close(self) -> None:
        """No more trials: the workers may go home."""
        self.is_closed = True
        await self.jobs.put(None)

    # The workers' end; only the first worker of a group calls.

    async def take(self, timeout_s: float) -> Job | Literal["idle"] | None:
        """The trial to train: the running one after a restart; None when the search is over."""
        running = self.running
        if running is not None:
            running.attempts += 1
            if running.job["id"] in self.cancelled:
                await self.end(running.job["id"], None)
            elif running.attempts > ATTEMPTS_PER_TRIAL:
                reason = (
                    f"its worker died {ATTEMPTS_PER_TRIAL} times without an evaluation between; "
                    "the usual cause is memory"
                )
                await self.end(running.job["id"], {"status": "failed", "reason": reason})
            else:
                return running.job
        if self.is_closed and self.jobs.empty():
            return None
        try:
            job = await asyncio.wait_for(self.jobs.get(), timeout_s)
        except TimeoutError:
            return "idle"
        if job is None or job["id"] in self.cancelled:
            return None if job is None else "idle"
        self.running = _Running(job)
        return job

    async def report(self, trial: str, number: int, result: Result) -> bool:
        """Hands in evaluation `number` (from 0), once; answers whether to stop, when Tune knows."""
        running = self.running
        if running is None or running.job["id"] != trial:
            return True  # asked by a worker that was cut off, while another group went on
        if number == len(running.delivered):
            running.delivered.append(result)
            running.attempts = 0
            await self.results.put((trial, result))
        if result["status"] != "running":
            return True
        async with self.changed:
            await self.changed.wait_for(
                lambda: trial in self.cancelled or self.asked.get(trial, 0) > number + 1
            )
        return trial in self.cancelled

    async def end(self, trial: str, result: Result | None) -> None:
        """A trial is over: by a last result, or because it was told to stop."""
        if self.running is None or self.running.job["id"] != trial:
            return  # said already, by another worker of the group
        if result is not None:
            await self.results.put((trial, result))
        self.running = None

    async def start(self) -> bool:
        """A group begins to get ready; False where others have failed to so often that the slot is
        given up."""
        self.starts += 1
        if self.starts <= STARTS_PER_SLOT:
            return True
        await self.results.put(("", {"status": "slot failed", "reason": self.start_fault}))
        return False

    async def start_failed(self, reason: str) -> None:
        """Why a group could not get ready, as the worker says whose fault it is."""
        self.start_fault = reason

    async def ready(self) -> None:
        self.starts = 0
