"""The progress of a search on the screen."""

import time
from collections.abc import Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import Phase, SearchRecord
from thermal_search.tuning.summary import UNFINISHED, TrialRecord
from thermal_search.tuning.time_left import Estimate

SHOWN_TRIALS = 12


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
        self.started = time.monotonic()
        self.images_before = self._images()
        self.live: Live | None = None
        if self.console.is_terminal:
            self.live = Live(self._table(), console=self.console, refresh_per_second=2)
            self.live.start()

    def show(self, event: str) -> None:
        """Prints an event with the status of the search."""
        if self.live:
            self.live.update(self._table())
        else:
            self.console.print(
                f"[{self._clock()}] {event} | {self.status()}",
                highlight=False,
                soft_wrap=True,
                markup=False,
            )

    def warn(self, sentence: str) -> None:
        self.console.print(sentence, style="yellow", highlight=False, markup=False)

    def close(self) -> None:
        if self.live:
            self.live.update(self._table())
            self.live.stop()

    def status(self) -> str:
        """One line: trials done / running / stopped, best so far, speed, time left."""
        trials = self._trials()
        running = sum(trial.status == "running" for trial in trials)
        stopped = sum(trial.status == "stopped" for trial in trials)
        failed = sum(trial.status in ("diverged", "failed") for trial in trials)
        done = sum(trial.status not in UNFINISHED for trial in trials)
        unit = "retrainings done" if self.phase == "retrainings" else "trials done"
        total = f"/{self.total}" if self.total else ""
        words = [f"{done}{total} {unit}", f"{running} running"]
        words += [f"{stopped} stopped early"] + ([f"{failed} failed"] if failed else [])
        if best := self.record.best:
            value = self.record.objective_values(best)[0]
            words.append(f"best {self.record.objective.axes[0]} {value:.4g} ({best.architecture})")
        shown = self._images() - self.images_before
        if shown:
            speed = shown / (time.monotonic() - self.started)
            words.append(f"{speed:.1f} images/s")
        if self.estimate and (seconds := self.estimate()) is not None:
            words.append(f"about {_duration(seconds)} left")
        return ", ".join(words)

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
        table = Table(box=None, pad_edge=False)
        for column in ("trial", "architecture", "status", "images", self.plan.metric, "objective"):
            table.add_column(column, justify="left" if column != "images" else "right")
        for trial in self._trials()[-SHOWN_TRIALS:]:
            table.add_row(*self._row(trial))
        return Group(table, Text(self.status()))

    def _row(self, trial: TrialRecord) -> tuple[str, ...]:
        metric = self.plan.metric
        last = f"{trial.history[-1].metrics[metric]:.2f}" if trial.history else ""
        objective = self.record.objective_values(trial)
        return (
            trial.id,
            trial.architecture,
            trial.status,
            f"{trial.images:,}",
            last,
            f"{objective[0]:.4g}" if objective else "",
        )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
