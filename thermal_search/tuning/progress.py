"""The progress of a search on the screen."""

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from thermal_search.evaluation.baselines import TRIVIAL_BASELINE
from thermal_search.evaluation.comparison import display_name
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.record_files import Phase
from thermal_search.tuning.summary import UNFINISHED, TrialRecord
from thermal_search.tuning.time_left import Estimate

ESTIMATE_INTERVAL_S = 2.0
"""Least time between two estimates of the time left."""

ESTIMATE_SHARE = 0.02
"""Largest share of the time that goes into estimates: of thousands of trials they take long."""

STATUS_SHARE = 0.05
"""Largest share of the time that goes into the status of the search, which counts every trial."""

SHOWN_TRIALS = 12
"""Rows of the table: all running trials, and the best of the others."""


class Progress:
    """A live table on a terminal; elsewhere one line per event."""

    def __init__(
        self,
        plan: SearchPlan,
        record: SearchRecord,
        phase: Phase = "trials",
        console: Console | None = None,
        estimate: Estimate | None = None,
    ):
        self.plan, self.record = plan, record
        self.phase: Phase = phase
        self.total = plan.finalists * plan.seeds if phase == "retrainings" else plan.trials
        if phase == "trials" and plan.is_open_ended:
            self.total = 0
        self.console = console or Console()
        self.estimate = estimate
        self.expected_end: float | None = None
        """When the search ends, by `time.monotonic` and the last estimate."""

        self.next_estimate = self.next_status = 0.0
        self.is_status_shown = True
        """Whether the status has been shown since the last event."""

        self.started = time.monotonic()
        self.images_before = self._images()
        self.slots: list[str | None] = []
        """The trial in each slot; None in one that is free."""

        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(self._table(), console=self.console, refresh_per_second=2)
            self.live.start()

    def begin(self, id: str) -> None:
        """A trial takes the first free slot."""
        if id in self.slots:
            return
        if None in self.slots:
            self.slots[self.slots.index(None)] = id
        else:
            self.slots.append(id)

    def end(self, id: str) -> None:
        """A trial leaves its slot."""
        if id in self.slots:
            self.slots[self.slots.index(id)] = None
            if self.live:  # whose table shows who is in which slot
                self.is_status_shown = False

    def show(self, id: str, event: str) -> None:
        """Prints an event of a trial with its slot, and below it the status of the search, unless
        events follow each other so fast that it would take too much of the time."""
        if not self.live:
            slot = f"slot {self.slots.index(id) + 1}: " if id in self.slots else ""
            self._print([f"[{self._clock()}] {slot}{id} {self.record[id].architecture} {event}"])
        self.is_status_shown = False
        self.catch_up()

    def catch_up(self) -> None:
        """Shows the status if it is due, and was not shown since the last event."""
        began = time.monotonic()
        if self.is_status_shown or began < self.next_status:
            return
        self._show_status()
        self.is_status_shown = True
        ended = time.monotonic()
        self.next_status = ended + (ended - began) / STATUS_SHARE

    def _show_status(self) -> None:
        if self.live:
            self.live.update(self._table())
        else:
            self._print([f"    {line}" for line in self.status()])

    def _print(self, lines: Sequence[str]) -> None:
        self.console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)

    def warn(self, sentence: str) -> None:
        self.console.print(sentence, style="yellow", highlight=False, markup=False)

    def close(self) -> None:
        if self.live or not self.is_status_shown:
            self._show_status()
        if self.live:
            self.live.stop()

    def status(self) -> list[str]:
        """Lines: trials done and stopped, speed and time left; the best beside its baseline."""
        return [", ".join([*self._counts(), *self._speed()]), *self._best()]

    def _counts(self) -> list[str]:
        trials = self._trials()
        stopped = sum(trial.status == "stopped" for trial in trials)
        failed = sum(trial.status in ("diverged", "failed") for trial in trials)
        done = sum(trial.status not in UNFINISHED for trial in trials)
        unit = "retrainings done" if self.phase == "retrainings" else "trials done"
        total = f"/{self.total}" if self.total else ""
        words = [f"{done}{total} {unit}"]
        words += [f"{stopped} stopped early"] if stopped else []
        return words + ([f"{failed} failed"] if failed else [])

    def _best(self) -> list[str]:
        """The best trial beside inverted grey, whose value shows what the number means."""
        if not (best := self.record.best):
            return []
        axis, value = self.record.objective.axes[0], self.record.objective_values(best)[0]
        text = f"best {axis} {value:.4g} ({best.architecture} {best.id})"
        baseline = self.record.baselines.get(TRIVIAL_BASELINE, {})
        if axis.keys <= baseline.keys():
            text += f"; {display_name(TRIVIAL_BASELINE)} {axis.value(baseline):.4g}"
        return [text]

    def _speed(self) -> list[str]:
        shown = self._images() - self.images_before
        words: list[str] = []
        if shown:
            words.append(f"{shown / (time.monotonic() - self.started):.1f} images/s")
        if (seconds := self._seconds_left()) is not None:
            words.append(f"at most {_duration(round(seconds))} left")
        return words

    def _seconds_left(self) -> float | None:
        """The last estimate, less the time since: each one looks at every trial of the search."""
        now = time.monotonic()
        if self.estimate and now >= self.next_estimate:
            estimate = self.estimate()
            self.expected_end = None if estimate is None else now + estimate
            took = time.monotonic() - now
            self.next_estimate = now + max(ESTIMATE_INTERVAL_S, took / ESTIMATE_SHARE)
        return None if self.expected_end is None else max(self.expected_end - now, 0.0)

    def _trials(self) -> Sequence[TrialRecord]:
        is_retraining = self.phase == "retrainings"
        return list(
            self.record.retrainings.values() if is_retraining else self.record.trials.values()
        )

    def _images(self) -> int:
        return sum(trial.images for trial in self._trials())

    def _clock(self) -> str:
        return _duration(time.monotonic() - self.started)

    def _table(self) -> Group:
        """Who is in which slot, then the best of the others: at most 80 columns wide."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("slot", justify="right")
        table.add_column("trial", no_wrap=True)
        table.add_column("architecture", no_wrap=True)
        table.add_column("images", justify="right", no_wrap=True)
        table.add_column(_short(self.plan.metric), justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for slot, id in enumerate(self.slots, start=1):
            if id is None:
                table.add_row(str(slot), "", "free")
            else:
                table.add_row(str(slot), *self._row(self.record[id]))
        for trial in self._others()[: max(SHOWN_TRIALS - len(self.slots), 0)]:
            table.add_row("", *self._row(trial), style="dim")
        return Group(table, Text("\n".join(self.status())))

    def _others(self) -> list[TrialRecord]:
        """The trials that are in no slot: the evaluated ones, best first, then the others."""
        others = [trial for trial in self._trials() if trial.id not in self.slots]
        ranked = [trial for trial in others if trial.history]
        ranked.sort(key=lambda t: (t.status != "completed", self.record.objective_values(t)))
        return ranked + [trial for trial in others if not trial.history]

    def _row(self, trial: TrialRecord) -> tuple[str, ...]:
        last = f"{trial.history[-1].metrics[self.plan.metric]:.2f}" if trial.history else "-"
        done = int(100 * trial.share)
        images = f"{trial.images:,} ({done}%)"
        return trial.id, trial.architecture, images, last, trial.status


def _short(metric: str, width: int = 12) -> str:
    """A metric's key that fits a column."""
    return metric if len(metric) <= width else f"{metric[: width - 1]}~"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
