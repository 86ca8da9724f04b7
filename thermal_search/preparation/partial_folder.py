"""The folder that a dataset is built in, OUTPUT.partial: one run at a time, and resumable.

It is renamed to OUTPUT at the end, so that a dataset appears complete or not at all.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from thermal_search.data.manifest import FILE, Shard
from thermal_search.documents import Document
from thermal_search.errors import DatasetError, ThermalSearchError
from thermal_search.preparation.shards import STATE

PLAN = "preparation.json"
PREVIEW = "preview.png"
CONTACT_SHEET = "alignment.png"


class PreparationPlan(Document):
    """Everything that decides the bytes of a dataset; a folder of another plan is not resumed."""

    ERROR: ClassVar[type[ThermalSearchError]] = DatasetError
    REMEDY: ClassVar[str] = "prepare the dataset again with process.py"

    version: Literal[1] = 1  # pyright: ignore[reportIncompatibleVariableOverride] - it never changes
    layout: str
    """As recognized."""

    settings: dict[str, Any]
    """`PreparationSettings.recorded()`."""

    alignments: dict[str, dict[str, Any]]
    """By recording, the alignments that were known in advance."""

    frames: str
    """A hash of the frames' files, sizes, times and splits."""

    def is_in(self, file: Path) -> bool:
        """Whether the file holds this plan."""
        try:
            return file.read_bytes() == self.content()
        except OSError:
            return False

    def content(self) -> bytes:
        return f"{self.model_dump_json(indent=2)}\n".encode()


@contextlib.contextmanager
def claim(folder: Path, plan: PreparationPlan) -> Generator[None]:
    """Locks a partial folder; its content is kept if it is of the same plan, else removed."""
    file = folder / PLAN
    unfinished = folder / f"{PLAN}.unfinished"
    if folder.exists() and set(folder.iterdir()) - {unfinished} and not file.exists():
        raise DatasetError(
            f"{folder} must be absent or of an interrupted run, but holds other files: move it "
            "elsewhere."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not plan.is_in(file):
            for path in folder.iterdir():
                if path != file:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            unfinished.write_bytes(plan.content())
            unfinished.replace(file)
        yield


def remove_leftovers(folder: Path, shards: Sequence[Shard]) -> None:
    """Removes everything that is not part of the dataset, such as files of a killed run."""
    keep = {folder / name for name in (FILE, PLAN, PREVIEW, CONTACT_SHEET)}
    keep |= {folder / shard.path for shard in shards}
    shutil.rmtree(folder / STATE)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in keep:
            path.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Generator[None]:
    # The folder itself is the lock: it leaves no file behind, and is released with its process.
    finished = DatasetError(f"{folder}: another run has just finished it. Run the command again.")
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        raise finished from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"{folder} must be used by one run at a time, but another run is working on it: "
                "wait until it ends."
            ) from None
        # Another run may have renamed or replaced the folder while we opened it.
        if not folder.exists() or not os.path.samestat(os.fstat(descriptor), folder.stat()):
            raise finished
        yield
    finally:
        os.close(descriptor)
