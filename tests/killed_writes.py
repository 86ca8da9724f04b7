"""A process that is killed at one of its writes, in tests of what a search keeps."""

from pathlib import Path

from thermal_search.storage import Location


class Killed(BaseException):
    """The process ends here; nothing that is written in an `except` or `finally` may count."""


def kill_at(monkeypatch, step, *, counts=lambda path: True):
    """Kills at the `step`-th write or rename of those that count by their path."""
    count = 0

    def killing(function):
        def call(*arguments, **settings):
            nonlocal count
            count += counts(str(arguments[0]))
            if count == step:
                raise Killed
            return function(*arguments, **settings)

        return call

    monkeypatch.setattr(Path, "replace", killing(Path.replace))
    monkeypatch.setattr(Location, "write_bytes", killing(Location.write_bytes))
