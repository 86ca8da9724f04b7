"""The actor that passes plans from Ray Tune to a slot's workers, and their reports back."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray.exceptions import RayError

from thermal_search.training.trial_plan import TrialPlan
from thermal_search.tuning.slots.messages import (
    SlotFailure,
    StartFailure,
    TrialConfig,
    TrialReport,
)

ATTEMPTS_PER_TRIAL = 3
"""Times in a row a trial may lose its workers without an evaluation in between."""

NAME_PREFIX = "mailbox-"
"""How the name of each mailbox begins, in the Ray namespace of the process that searches."""

REDIRECT_TIMEOUT_S = 60.0
"""How long the process that searches waits for a slot to take another configuration."""

STARTS_PER_SLOT = 3
"""Times in a row a worker group may fail to get ready before the slot gives up."""


@dataclass
class _Running:
    plan: TrialPlan
    reports: int = 0
    """Evaluations delivered so far."""

    attempts: int = 1


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds the running trial, so that a restarted worker group finds it again.

    A trial's reports are numbered by its evaluations. Each reaches Ray Tune once, however often a
    restarted group repeats it, and the workers wait for Tune's answer: a request for the next
    report means "continue", a cancellation means "stop".
    """

    def __init__(self) -> None:
        self.plans: asyncio.Queue[TrialPlan | None] = asyncio.Queue()
        self.reports: asyncio.Queue[tuple[str, TrialReport] | StartFailure | SlotFailure | None] = (
            asyncio.Queue()
        )
        self.changed = asyncio.Condition()
        self.running: _Running | None = None
        self.requested: dict[str, int] = {}
        """Reports that Ray Tune has requested of each trial."""

        self.cancelled: set[str] = set()
        self.trial = ""
        """The trial of the last plan."""

        self.redirected: TrialConfig | None = None
        """What this trial is to continue with."""

        self.is_closed = False
        self.is_stopped = False
        """Whether the slot ends before its trial has."""

        self.starts = 0
        self.has_failed_to_start = False
        """Since a group was ready."""

        self.start_error = "its workers died before they were ready; the usual cause is memory"

    # Called by the slot.

    async def submit(self, trial: str, plan: TrialPlan) -> None:
        self.trial, self.redirected = trial, None
        await self.plans.put(plan)

    async def take_redirected(self) -> TrialConfig | None:
        """What the trial is to continue with, if that has changed; once."""
        config, self.redirected = self.redirected, None
        return config

    async def next_report(self, trial: str) -> TrialReport | StartFailure | SlotFailure | None:
        """The next report of a trial; the request tells its workers to continue. None if the slot
        is to end now."""
        async with self.changed:
            self.requested[trial] = self.requested.get(trial, 0) + 1
            self.changed.notify_all()
        while not self.is_stopped:
            item = await self.reports.get()
            if isinstance(item, StartFailure):
                self.requested[trial] -= 1  # the report is still to come
                return item
            if item is None or isinstance(item, SlotFailure):
                return item
            owner, report = item
            if owner == trial:
                return report
        return None

    async def cancel(self, trial: str) -> None:
        async with self.changed:
            self.cancelled.add(trial)
            self.changed.notify_all()

    async def close(self) -> bool:
        """No more trials: the workers may leave. Returns whether they may be in the middle of a
        trial."""
        async with self.changed:
            self.is_closed = True
            self.changed.notify_all()
        await self.plans.put(None)
        return self.is_stopped

    # Called by the process that searches.

    async def redirect(self, trial: str, config: TrialConfig) -> bool:
        """What a trial is to continue with after its last report; False if another one runs
        here."""
        if trial != self.trial:
            return False
        self.redirected = config
        return True

    async def stop(self) -> None:
        """Ends the slot's wait for a report."""
        self.is_stopped = True
        await self.reports.put(None)

    # Called by the first worker of a group.

    async def take(self, timeout_s: float) -> TrialPlan | Literal["idle"] | None:
        """The trial to train: the running one after a restart; None when the slot closes, "idle"
        if there is none within `timeout_s` seconds."""
        running = self.running
        if running is not None:
            running.attempts += 1
            if running.plan.id in self.cancelled:
                await self.end(running.plan.id, None)
            elif running.attempts > ATTEMPTS_PER_TRIAL:
                reason = (
                    f"its worker died {ATTEMPTS_PER_TRIAL} times without an evaluation in between; "
                    "the usual cause is memory"
                )
                await self.end(running.plan.id, TrialReport(status="interrupted", reason=reason))
            else:
                return running.plan
        if self.is_closed and self.plans.empty():
            return None
        try:
            plan = await asyncio.wait_for(self.plans.get(), timeout_s)
        except TimeoutError:
            return "idle"
        if plan is None or plan.id in self.cancelled:
            return None if plan is None else "idle"
        self.running = _Running(plan)
        return plan

    async def report(self, trial: str, number: int, report: TrialReport) -> bool:
        """Delivers evaluation `number` (from 0), once; returns whether to stop, when Tune has
        decided."""
        running = self.running
        if running is None or running.plan.id != trial:
            return True  # from a worker that was cut off while another group took over
        if number == running.reports:
            running.reports += 1
            running.attempts = 0
            await self.reports.put((trial, report))
        if report.is_last:
            return True
        async with self.changed:
            await self.changed.wait_for(
                lambda: (
                    self.is_closed
                    or trial in self.cancelled
                    or self.requested.get(trial, 0) > number + 1
                )
            )
        return self.is_closed or trial in self.cancelled

    async def end(self, trial: str, report: TrialReport | None) -> None:
        """A trial ends: by a last report, or because it was told to stop."""
        if self.running is None or self.running.plan.id != trial:
            return  # ended already, by another worker of the group
        if report is not None:
            await self.reports.put((trial, report))
        self.running = None

    async def start(self) -> bool:
        """A group starts to get ready; False if so many have failed that the slot gives up."""
        self.starts += 1
        if self.starts <= STARTS_PER_SLOT:
            return True
        await self.reports.put(SlotFailure(self.start_error))
        return False

    async def start_failed(self, reason: str) -> None:
        """Why a group could not get ready. The first reason is shown at once: another group takes
        most of a minute to start, and may fail in the same way."""
        self.start_error = reason
        if not self.has_failed_to_start:
            self.has_failed_to_start = True
            await self.reports.put(StartFailure(reason))

    async def ready(self) -> None:
        self.starts, self.has_failed_to_start = 0, False


def stop_slots() -> None:
    """Tells all slots of this process's search that they end now. Ray Tune's own request waits
    until a slot has a report, and the next evaluation may take long."""
    with contextlib.suppress(RayError):
        for mailbox in _mailboxes():
            mailbox.stop.remote()


def redirect_trial(trial: str, config: TrialConfig) -> bool:
    """Tells the slot of a trial what the trial is to continue with. Ray Tune tells a slot nothing
    while its trial runs.

    Returns False if there is no answer in time. True does not say that a slot has it: if the slot
    was lost, the trial starts in another with what Ray Tune has.
    """
    with contextlib.suppress(RayError):
        waiting = [mailbox.redirect.remote(trial, config) for mailbox in _mailboxes()]
        while waiting:
            answered, waiting = ray.wait(waiting, timeout=REDIRECT_TIMEOUT_S)
            if not answered:
                return False
            with contextlib.suppress(RayError):  # that slot is lost
                if ray.get(answered[0]):
                    return True
    return True


def _mailboxes() -> list[Any]:
    """Those of all slots of this process's search."""
    found: list[Any] = []
    for name in ray.util.list_named_actors():
        if name.startswith(NAME_PREFIX):
            with contextlib.suppress(ValueError):  # it has ended
                found.append(ray.get_actor(name))
    return found
