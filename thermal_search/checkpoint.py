"""A trial's state on disk: whole or absent, and exact.

    TRIAL/state-00000300/shared.pt     what all workers have in common
    TRIAL/state-00000300/worker-1.pt   what only worker 1 has: random state, place in the data, ...
    TRIAL/generator.pt                 the generator of the last evaluation, to be exported

Everything is tensors and plain values, so that loading never runs code.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]
GENERATOR = "generator.pt"


def save(state: State, path: Path) -> None:
    """Writes one file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path, device: torch.device | str = "cpu") -> State:
    return torch.load(path, map_location=device, weights_only=True)


def pending(trial: Path, images: int) -> Path:
    """The folder the workers write their parts of a state into, before `commit`."""
    return trial / f"state-{images:08d}.partial"


def commit(folder: Path) -> Path:
    """Makes a written state the latest, and removes those before it. For one worker to call."""
    final = folder.with_suffix("")
    if final.exists():  # a restarted group comes by here again, with the same state
        shutil.rmtree(final)
    folder.rename(final)
    for old in final.parent.glob("state-*"):
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def latest(trial: Path) -> Path | None:
    """The newest whole state of a trial, or None."""
    whole = (path for path in trial.glob("state-*") if not path.suffix)
    return max(whole, default=None)
