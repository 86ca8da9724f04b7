"""A trial's state on a disk or in a bucket: whole or absent, and exact.

    TRIAL/state-00000300/shared.pt     what all workers have in common
    TRIAL/state-00000300/worker-1.pt   what only worker 1 has: random state, place in the data, ...
    TRIAL/state-00000300/whole.json    the names of its parts, written when all of them are there
    TRIAL/generator.pt                 the generator of the last evaluation, to be exported

A bucket cannot rename a folder, so what makes a state whole is a file, written last. Everything is
tensors and plain values, so that loading never runs code.
"""

import json
from pathlib import Path
from typing import Any

import torch

from thermal_search.storage import Location

State = dict[str, Any]
GENERATOR = "generator.pt"
WHOLE = "whole.json"


def save(state: State, place: Location) -> None:
    """Writes one file so that a reader sees the old one or the new one, never a part."""
    with place.open_output() as file:
        torch.save(state, file)


def load(place: Location | Path, device: torch.device | str = "cpu") -> State:
    with Location.of(place).open_input() as file:
        return torch.load(file, map_location=device, weights_only=True)


def pending(trial: Location, images: int) -> Location:
    """The folder the workers write their parts of a state into, before `commit`."""
    return trial / f"state-{images:08d}"


def commit(folder: Location, parts: list[str]) -> None:
    """Makes a written state the latest, and removes all others. For one worker to call."""
    (folder / WHOLE).write_text(json.dumps(parts))
    for other in folder.parent.list():
        if other.name.startswith("state-") and other.name != folder.name:
            # First the mark: what is removed only in part must not pass for whole.
            (other / WHOLE).delete()
            other.delete()


def latest(trial: Location | Path) -> Location | None:
    """The newest whole state of a trial, or None."""
    marks = [file.parent for file in Location.of(trial).list(deep=True) if file.name == WHOLE]
    return max(marks, key=lambda folder: folder.name, default=None)


def parts(folder: Location) -> list[str]:
    """The names of a whole state's files. Others in its folder are of an attempt that broke off."""
    return json.loads((folder / WHOLE).read_text())
