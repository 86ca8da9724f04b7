"""Entries for the tracking server: sent in order by a thread, retried while it is unreachable."""

import threading
import time
from collections import deque
from collections.abc import Callable

from mlflow.exceptions import MlflowException

from thermal_search.tracking.store import without_password

MIN_PAUSE_S, MAX_PAUSE_S = 0.5, 10.0

NON_RETRYABLE = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
}
"""MLflow error codes that a retry does not change. Any other error means an unreachable server."""


class LogQueue:
    """Sends entries one after another, in a thread of its own.

    An entry that fails because the server is unreachable is retried until it succeeds, and those
    after it wait: a server that comes back gets everything, in order. An entry that the server
    rejects is dropped with a warning.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.entries: deque[Callable[[], None]] = deque()
        self.changed = threading.Condition()
        self.is_closed = False
        # A daemon: a server that stays unreachable must not keep a finished search from ending.
        threading.Thread(target=self._send_all, name="log_queue", daemon=True).start()

    def add(self, entry: Callable[[], None]) -> None:
        with self.changed:
            self.entries.append(entry)
            self.changed.notify_all()

    def close(self, timeout_s: float) -> int:
        """Waits until everything is sent, at most `timeout_s` seconds; returns the number of
        entries left."""
        with self.changed:
            self.changed.wait_for(lambda: not self.entries, timeout=timeout_s)
            self.is_closed = True
            self.changed.notify_all()
            return len(self.entries)

    def _send_all(self) -> None:
        pause = MIN_PAUSE_S
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.entries or self.is_closed)
                if self.is_closed:
                    return
                entry = self.entries[0]
            try:
                entry()
            except (MlflowException, OSError) as error:  # requests raises OSErrors
                if getattr(error, "error_code", None) not in NON_RETRYABLE:
                    if pause == MIN_PAUSE_S:
                        self.warn(
                            "MLflow is unreachable; entries are queued and retried: "
                            f"{_first_line(error)}"
                        )
                    time.sleep(pause)
                    pause = min(2 * pause, MAX_PAUSE_S)
                    continue
                self.warn(f"MLflow rejects an entry, which is dropped: {_first_line(error)}")
            except Exception as error:  # a bug in one entry must not end the logging of all others
                self.warn(f"An entry for MLflow is dropped: {_first_line(error)}")
            pause = MIN_PAUSE_S
            with self.changed:
                self.entries.popleft()
                self.changed.notify_all()


def _first_line(error: Exception) -> str:
    line = without_password((str(error).splitlines() or [""])[0])
    return f"{type(error).__name__}: {line[:300]}"
