"""A search in virtual time: trials occupy slots and report one evaluation after another, as Ray
Tune would deliver them to the product's scheduler. Nothing trains, and no process starts."""

import heapq
import itertools
from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any

from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.summary import TrialRecord


class VirtualSearch(ABC):
    """Delivers events in the order of their times; whoever derives from it says what they are."""

    def __init__(self, slots: int) -> None:
        self.slots, self.now = slots, 0.0
        self.events: list[tuple[float, int, Any]] = []
        self.order = itertools.count()

    def run(self) -> None:
        """Fills the slots, and again whenever a trial ends, until none is left."""
        for _ in range(self.slots):
            self._fill_slot()
        while self.events:
            self.now, _, trial = heapq.heappop(self.events)
            if self.report(trial):
                self._fill_slot()
            else:
                self._schedule(trial)

    def _fill_slot(self) -> None:
        trial = self.start()
        if trial is not None:
            self._schedule(trial)

    def _schedule(self, trial: Any) -> None:
        time = self.now + self.seconds_to_report(trial)
        heapq.heappush(self.events, (time, next(self.order), trial))

    @abstractmethod
    def start(self) -> Any:
        """Starts the next trial; None if there is none."""

    @abstractmethod
    def seconds_to_report(self, trial: Any) -> float:
        """From now to the trial's next report."""

    @abstractmethod
    def report(self, trial: Any) -> bool:
        """Delivers a trial's next report; whether the trial ends with it."""


def tune_trial(record: TrialRecord, **attributes: Any) -> SimpleNamespace:
    """What schedulers and callbacks see of a trial of Ray Tune."""
    config = TrialConfig(record.architecture, record.parameters)
    return SimpleNamespace(
        trial_id=record.id, config=config.to_tune(), last_result={}, **attributes
    )


def tune_result(report: TrialReport, images: int) -> dict[str, Any]:
    """A report as Ray Tune delivers it."""
    return {"status": report.status, "images": images, REPORT: report}
