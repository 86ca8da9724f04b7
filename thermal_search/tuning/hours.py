"""The time of a search with --hours: which trials may still start, and when running ones end."""

import time
from collections.abc import Callable

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.record_files import Phase
from thermal_search.tuning.summary import OUT_OF_TIME, UNFINISHED, TimeFile
from thermal_search.tuning.time_left import TrialTimes, retraining_seconds

Clock = Callable[[], float]

SAVED_EVERY_S = 30.0
"""A search that is killed forgets no more of its time than this."""

CHECKED_EVERY_S = 2.0
"""How often the clock is compared with what the retrainings need."""

RETRAINING_MARGIN = 1.1
"""How much longer than estimated the retrainings may take."""

EXPORT_SHARE, MAX_EXPORT_S = 0.02, 300.0
"""Left at the end for the export: a fraction of all hours, but no more than these seconds."""

FOR_TRAINING = 0.75
"""The fraction of the hours that training may take: the rest is for starts and evaluations."""


def compute_for(
    hours: float, slots: int, trials: int, retrainings: int, seconds_per_unit: float
) -> float:
    """The compute of every trial, in images of the reference, so that `trials` full trials and then
    the retrainings take the hours.

    Args:
        seconds_per_unit: of training, for one image of the reference.
    """
    rounds = -(-trials // slots) + -(-retrainings // slots)
    return max(hours * 3600 * FOR_TRAINING / rounds / seconds_per_unit, 1.0)


class SearchTime:
    """Counts the time of a search over all its runs, and ends its phases in time."""

    def __init__(
        self,
        record: SearchRecord,
        slots: int,
        times: TrialTimes,
        *,
        clock: Clock = time.monotonic,
        started: float | None = None,
    ) -> None:
        """`started`: when this run of the search began, on the clock."""
        assert record.plan.hours
        self.record, self.slots, self.times, self.clock = record, slots, times, clock
        self.started = clock() if started is None else started
        # Of runs without --hours no time is kept: at least what their trials took.
        trials = record.trials.values()
        self.before = record.time.seconds or sum(trial.seconds for trial in trials) / slots
        self.saved = self.started
        self.next_check = self.started

    @property
    def spent(self) -> float:
        """Seconds, earlier runs included."""
        return self.before + self.clock() - self.started

    @property
    def left(self) -> float:
        """Seconds until the export begins; negative if the time is over."""
        hours = self.record.plan.hours
        assert hours
        total = hours * 3600
        return total - min(EXPORT_SHARE * total, MAX_EXPORT_S) - self.spent

    def begin(self, phase: Phase) -> None:
        """Opens a phase again if there are more hours than when it ended; else ends what is left of
        it if its time is over."""
        record, hours = self.record, self.record.plan.hours
        was_over = record.time.are_trials_over or record.time.are_retrainings_over
        if was_over and (hours or 0.0) > record.time.hours_when_over:
            record.save_time(TimeFile(seconds=self.spent))
            for trial in [*record.trials.values(), *record.retrainings.values()]:
                if trial.is_out_of_time:
                    record.end(trial.id, "interrupted", "the search has more hours")
        if self.is_over(phase):
            trials = record.trials if phase == "trials" else record.retrainings
            for trial in trials.values():
                if trial.status in UNFINISHED:
                    record.end(trial.id, "stopped", OUT_OF_TIME)
            self.close(phase)

    def is_over(self, phase: Phase, id: str | None = None) -> bool:
        """Whether a phase is to end. Room for the retrainings is left only if there will be any: if
        a trial has completed.

        Args:
            id: of a running trial, which has been evaluated: whether it is to end because its next
                evaluation would be too late.
        """
        has_finalist = any(t.status == "completed" for t in self.record.trials.values())
        needed = self._for_retrainings() if phase == "trials" and has_finalist else 0.0
        if id is not None:
            trial = self.record[id]
            share = trial.budget.evaluate_every / trial.budget.images
            needed += share * self.times.by_architecture().get(trial.architecture, 0.0)
        return self.left <= needed

    def has_run_out(self, phase: Phase) -> bool:
        """Whether a phase is to end now, in the middle of evaluation intervals: they take longer
        than was expected, or are the first of their kind."""
        if self.clock() < self.next_check:
            return False
        self.next_check = self.clock() + CHECKED_EVERY_S
        return self.is_over(phase)

    def may_start(self, phase: Phase, architecture: str | None = None) -> bool:
        """Whether there is time for one more trial of the phase, and for what comes after it.

        Args:
            architecture: of the trial; None if any may come.
        """
        seconds = self.times.by_architecture()
        longest = max(seconds.values(), default=0.0)
        longest = longest if architecture is None else seconds.get(architecture, longest)
        if phase == "retrainings":
            return self.left > longest / RETRAINING_MARGIN
        return self.left > self._for_retrainings() + longest

    def close(self, phase: Phase) -> None:
        """No further trial of a phase starts: what has completed is ranked."""
        record = self.record
        is_final = phase == "retrainings"
        record.save_time(
            TimeFile(
                seconds=self.spent,
                are_trials_over=record.time.are_trials_over or not is_final,
                are_retrainings_over=record.time.are_retrainings_over or is_final,
                hours_when_over=record.plan.hours or 0.0,
            )
        )

    def keep(self) -> None:
        """Saves the time spent, every now and then."""
        if self.clock() - self.saved >= SAVED_EVERY_S:
            self.save()

    def save(self) -> None:
        """Saves the time spent."""
        self.saved = self.clock()
        self.record.save_time(self.record.time.model_copy(update={"seconds": self.spent}))

    def _for_retrainings(self) -> float:
        seconds = self.times.by_architecture()
        if not seconds:
            return 0.0
        return RETRAINING_MARGIN * retraining_seconds(self.record, self.slots, seconds)
