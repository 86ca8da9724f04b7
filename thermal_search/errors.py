"""Errors meant for people. Every message says what must hold, what came, and what to do."""

import difflib
import signal
from collections.abc import Iterable, Sequence


class ThermalSearchError(Exception):
    """The base of every error that the command line prints as one sentence."""


class StorageError(ThermalSearchError):
    """A store refuses or does not answer, or an address is invalid."""


class DatasetError(ThermalSearchError):
    """A recording or a prepared dataset is invalid."""


class SearchError(ThermalSearchError):
    """A search cannot start or resume: an unknown name, an impossible budget, a foreign folder."""


class SettingsError(SearchError):
    """A setting has a value that it cannot have, on the command line, in a file or in Python."""


class SearchStopped(SearchError):
    """A search has stopped before its end because of a fault of a machine; it can be resumed."""


class SearchInterrupted(SearchError):
    """A signal has stopped a search; it can be resumed."""

    def __init__(self, sentence: str, signal: signal.Signals) -> None:
        super().__init__(sentence)
        self.exit_code = 128 + signal
        """As a shell reports a command that the signal has ended."""


class WeightsUnavailable(ThermalSearchError):
    """The weights of a feature extractor are not available on this machine."""


class MetricError(ThermalSearchError):
    """A metric cannot be computed, or two values of it cannot be compared."""


class ExportMismatch(ThermalSearchError):
    """An exported generator does not generate the same images as the trained one."""


class TrialDiverged(Exception):
    """A loss or a gradient is no longer finite. This is a result of a search, not a failure."""


def printable(text: str) -> str:
    """A text from outside, such as a file's name, with control characters escaped."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode-escape").decode()
        for letter in text
    )


def near_name(name: str, known: Iterable[str]) -> str:
    """The known name that a mistyped one is nearest to; empty if none is near."""
    return next(iter(difflib.get_close_matches(name, [*known], n=1)), "")


def nearest(name: str, known: Sequence[str], *, otherwise: str = "") -> str:
    """The end of a sentence about an unknown name: the known one that it is nearest to, or all of
    them (or `otherwise`, if they are many)."""
    if near := near_name(name, known):
        return f"did you mean {near}?"
    return f"known are {otherwise or ', '.join(known)}."


def known_names(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known ones, and the nearest of them."""
    names = [*known]
    near = near_name(name, names)
    return f"Available: {', '.join(names)}." + (f" Did you mean {near}?" if near else "")
