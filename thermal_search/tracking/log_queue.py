"""What is still to be told to the tracking server: in order, without anyone waiting for it."""

import threading
import time
from collections import deque
from collections.abc import Callable

from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException

from thermal_search.tracking.runs import without_password

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

NON_RETRYABLE = {
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
}
"""Answers that asking again does not change. Everything else is a server that is away."""


class LogQueue:
    """Entries, told one after another by a thread of its own.

    An entry that fails because the server is away is told again until it succeeds, and those after
    it wait: a server that comes back misses nothing and finds everything in its order. An entry
    that the server refuses is left out, with a word to `warn`.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn
        self.entries: deque[Callable[[], None]] = deque()
        self.changed = threading.Condition()
        self.is_closed = False
        # A daemon: a server that stays away must not keep a finished search from ending.
        threading.Thread(target=self._tell, name="log_queue", daemon=True).start()

    def add(self, entry: Callable[[], None]) -> None:
        with self.changed:
            self.entries.append(entry)
            self.changed.notify_all()

    def close(self, timeout_s: float) -> int:
        """Waits until all is told, at most so long; returns how many entries are left."""
        with self.changed:
            self.changed.wait_for(lambda: not self.entries, timeout=timeout_s)
            self.is_closed = True
            self.changed.notify_all()
            return len(self.entries)

    def _tell(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.entries or self.is_closed)
                if self.is_closed:
                    return
                entry = self.entries[0]
            try:
                entry()
            except (MlflowException, RequestException, OSError) as error:
                if getattr(error, "error_code", None) not in NON_RETRYABLE:
                    if pause == FIRST_PAUSE_S:
                        self.warn(
                            f"MLflow does not answer; what it is to know waits: {_first(error)}"
                        )
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_S)
                    continue
                self.warn(f"MLflow refuses an entry, which is left out: {_first(error)}")
            except Exception as error:  # a fault of ours must not end the telling of all others
                self.warn(f"An entry for MLflow is left out: {_first(error)}")
            pause = FIRST_PAUSE_S
            with self.changed:
                self.entries.popleft()
                self.changed.notify_all()


def _first(error: Exception) -> str:
    line = without_password((str(error).splitlines() or [""])[0])
    return f"{type(error).__name__}: {line[:300]}"
