"""How a search ends before its last trial: by a signal, or by a fault of a machine."""

import contextlib
import re
import shlex
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from ray.tune import Stopper

from thermal_search.errors import SearchInterrupted, SearchStopped, StorageError
from thermal_search.storage import Location, describe_fault

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PASSWORD = "PASSWORD"
"""What a printed command has where it needs a password."""


def resume_command(
    output: Location,
    *,
    address: str = "local",
    storage: str | None = None,
    architecture_files: Sequence[Path] = (),
) -> str:
    """The command that continues a search. Its settings are in its plan, where it runs is not.

    Args:
        storage: of Optuna's study, a URL whose password is left out.
    """
    words = ["thermal-search", "search", "--output", str(output), "--resume"]
    words += ["--address", address] if address != "local" else []
    words += ["--storage", _without_password(storage)] if storage else []
    for file in architecture_files:
        words += ["--architecture-file", str(file)]
    return shlex.join(words)


def _without_password(url: str) -> str:
    url = re.sub(r"(//[^/\s:@]*):[^/\s]*@", rf"\1:{PASSWORD}@", url)
    return re.sub(r"(?i)(password=)[^&\s]*", rf"\1{PASSWORD}", url)


class SearchStopper(Stopper):
    """Tells Ray Tune to stop the search, once there is a reason. The first reason counts."""

    def __init__(self, resume_command: str, *, can_resume: bool = True) -> None:
        self.resume_command = resume_command
        self.can_resume = can_resume
        """Whether there is a plan to resume from. Before, the search begins again."""

        self.signal: signal.Signals | None = None
        self.fault: str | None = None
        self.is_running = False
        """Whether Ray Tune runs trials, which it stops when this object says so."""

        self.is_time_over: Callable[[str], bool] | None = None
        """Whether the trial of this id is to end now, in a search with --hours."""

        self.is_out_of_time = False
        """Whether the phase that runs ends now, because the time of the search is over."""

        self.ended: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it into files that are never read

    @property
    def reason(self) -> str:
        """Why the search stops; empty if it does not."""
        return f"the search received {self.signal.name}" if self.signal else self.fault or ""

    def report_fault(self, reason: str) -> None:
        """Stops the search: a machine cannot do what the search needs."""
        self.fault = self.fault or reason

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if self.is_time_over and self.is_time_over(trial_id):
            self.ended.add(trial_id)
            return True
        return False

    def has_ended(self, trial_id: str) -> bool:
        """Whether a trial was ended because the time of the search was over."""
        return trial_id in self.ended

    def stop_all(self) -> bool:
        return bool(self.reason) or self.is_out_of_time

    @contextlib.contextmanager
    def on_storage_faults(self) -> Generator[None]:
        """A context in which a disk or a bucket that refuses stops the search."""
        try:
            yield
        except (OSError, StorageError) as error:
            self.report_fault(describe_fault(error))

    @contextlib.contextmanager
    def on_signals(self) -> Generator[None]:
        """A context in which the first SIGINT or SIGTERM stops the search: tidily while trials run,
        else by SearchInterrupted. A second one ends the process."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread receives signals
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def stop(number: int, frame: FrameType | None) -> None:
            self.signal = signal.Signals(number)
            for other in SIGNALS:
                signal.signal(other, signal.SIG_DFL)
            if not self.is_running:
                self.raise_reason()

        for number in SIGNALS:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)

    @contextlib.contextmanager
    def while_trials_run(self) -> Generator[None]:
        """A context that ends with SearchInterrupted or SearchStopped if the search is stopped."""
        self.is_running = True
        try:
            yield
        except Exception:
            self.raise_reason()  # the error follows from it
            raise
        finally:
            self.is_running = False
        self.raise_reason()

    def raise_reason(self) -> None:
        """Raises SearchInterrupted or SearchStopped if the search is to stop."""
        if self.signal:
            name = self.signal.name
            raise SearchInterrupted(
                f"Stopped by {name}; {self.resume_command} continues the search."
                if self.can_resume
                else f"Stopped by {name} before the search began: the same command begins it.",
                self.signal,
            )
        if self.fault:
            stopped = f"The search has stopped, because {self.fault}"
            raise SearchStopped(
                f"{stopped}: remove the cause, then continue with {self.resume_command}."
                if self.can_resume
                else f"{stopped}: remove the cause, then begin it with the same command."
            )
