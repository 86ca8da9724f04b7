"""How long the trials of a search train, and how long the search takes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from thermal_search.errors import SearchError
from thermal_search.training.operations import cost_of
from thermal_search.tuning.budgets import DEFAULT_COMPUTE, Budgets, Calibration
from thermal_search.tuning.calibrate import calibrate, unit_seconds
from thermal_search.tuning.hours import SearchTime, compute_for
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.record_files import Phase
from thermal_search.tuning.settings_to_plan import DEFAULT_TRIALS
from thermal_search.tuning.slots.config import SlotPlacement
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.time_left import TrialTimes, share_of, time_left

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class Pace:
    """How long trials train, and how long the search has."""

    record: SearchRecord
    budgets: Budgets | None
    """Of a search with equal compute."""

    times: TrialTimes
    clock: SearchTime | None
    """Of a search with --hours."""

    @classmethod
    def of(
        cls,
        plan: SearchPlan,
        size: int,
        slots: int,
        calibration: Calibration | None,
        started: float,
    ) -> "Pace":
        """Of the search in the plan's output folder, whose run began at `started`, by
        `time.monotonic`. `size`: of its images, in pixels."""
        record = SearchRecord.of(plan)
        budgets = plan.budgets(size, calibration)
        before: dict[str, float] = {}
        if budgets and calibration:
            space = plan.search_space()
            points = {name: budgets.fix(space.published(name)) for name in plan.architectures}
            before = trial_seconds(plan, points, calibration)
        times = TrialTimes(record, budgets.done if budgets else share_of, before)
        clock = SearchTime(record, slots, times, started=started) if plan.hours else None
        return cls(record, budgets, times, clock)

    def left(self, slots: int, phase: Phase) -> float | None:
        """Seconds until the search ends, as far as is known."""
        hours = self.clock.left if self.clock else math.inf
        if self.record.plan.is_open_ended and phase == "trials":
            return max(hours, 0.0)
        seconds = time_left(self.record, slots, phase, self.times)
        return None if seconds is None else max(min(seconds, hours), 0.0)


def calibration_of(
    plan: SearchPlan,
    size: int,
    placement: SlotPlacement,
    resume: bool,
    say: Callable[[str], None],
    *,
    measured: Calibration | None = None,
    mps: Any = None,
) -> Calibration | None:
    """What the machines were measured at, if the budgets of trials follow from --hours.

    Args:
        measured: the calibration of these slots, if there is one already.
        mps: the actor that knows how workers share a GPU; None if they share none.
    """
    if resume:
        if not plan.is_calibrated:
            return None
        file = plan.output / CALIBRATION_FILE
        try:
            return Calibration.read_or_backup(file)
        except FileNotFoundError:
            raise SearchError(f"{file} is missing: {Calibration.REMEDY}.") from None
    if not plan.needs_calibration:
        return None
    if not measured:
        say("Measuring how fast each architecture trains here, for at most two minutes.")
        measured, _ = calibrate(plan, size, placement, mps)
    compute = compute_of(plan, placement.slots, measured)
    return measured.model_copy(update={"compute": compute})


def compute_of(plan: SearchPlan, slots: int, calibration: Calibration) -> float:
    """The compute of every trial, in images of the reference."""
    if plan.compute or not plan.hours:
        return plan.compute or DEFAULT_COMPUTE
    trials = DEFAULT_TRIALS if plan.is_open_ended else plan.trials
    retrainings = plan.finalists * plan.seeds
    return compute_for(plan.hours, slots, trials, retrainings, unit_seconds(calibration))


def trial_seconds(
    plan: SearchPlan, points: Mapping[str, TrialConfig], calibration: Calibration
) -> dict[str, float]:
    """Seconds that full trials of these settings train, by a calibration."""
    seconds: dict[str, float] = {}
    for name, point in points.items():
        assert point.budget
        cost = cost_of(name, calibration.size, point.parameters)
        per_image = cost.per_image * calibration.seconds_per_operation(name)
        seconds[name] = point.budget.images * per_image / plan.workers
    return seconds
