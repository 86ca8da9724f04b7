"""The folder that a dataset is built in, OUTPUT.partial: one run at a time, and resumable.

It is renamed to OUTPUT at the end, so that a dataset appears complete or not at all.
"""

import contextlib
import fcntl
import os
import re
from collections.abc import Generator, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar, Literal

from thermal_search.atomic_file import UNFINISHED, replacing
from thermal_search.data.manifest import FILE, Shard
from thermal_search.documents import Document
from thermal_search.errors import DatasetError, ThermalSearchError
from thermal_search.preparation.shards import STATE
from thermal_search.storage import Location

PLAN = "preparation.json"
PREVIEW = "preview.png"
CONTACT_SHEET = "alignment.png"
OWN_FILES = re.compile(
    rf"{FILE}|{PLAN}|{PREVIEW}|{CONTACT_SHEET}"
    rf"|({STATE}/)?(pairs|rgb|thermal)/(train|val|test)-\d+\.(parquet|json)"
)
"""Paths of the files that a preparation writes to its partial folder."""


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
    """Locks a partial folder; its content is kept if it is of the same plan, else removed.

    Raises DatasetError if it holds anything that a preparation does not write.
    """
    _refuse_foreign_files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not plan.is_in(folder / PLAN):
            _remove(folder, {folder / PLAN})
            with replacing(folder / PLAN) as file:
                file.write(plan.content())
        yield


def remove_leftovers(folder: Path, shards: Sequence[Shard]) -> None:
    """Removes what a preparation wrote and is not part of the dataset, such as a killed run's."""
    keep = {folder / name for name in (FILE, PLAN, PREVIEW, CONTACT_SHEET)}
    _remove(folder, keep | {folder / shard.path for shard in shards})


def discard(folder: Path) -> None:
    """Removes a partial folder that is claimed."""
    _remove(folder, set())
    folder.rmdir()


def _remove(folder: Path, keep: Set[Path]) -> None:
    """Removes the files that a preparation wrote, except some, and empty folders."""
    for path in _own_files(folder) - keep:
        path.unlink()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _refuse_foreign_files(folder: Path) -> None:
    """Raises DatasetError unless the folder is absent, empty or of an interrupted run."""
    if not folder.is_symlink() and not folder.exists():
        return
    foreign = folder if folder.is_symlink() else _first_foreign(folder)
    if foreign is None and (folder / PLAN).exists():
        try:
            PreparationPlan.read(Location.of(folder / PLAN))
        except DatasetError:
            foreign = folder / PLAN
    elif foreign is None:
        # The plan is written first: without it, nothing else is of an interrupted run.
        foreign = next((p for p in folder.iterdir() if not UNFINISHED.fullmatch(p.name)), None)
    if foreign is not None:
        raise DatasetError(
            f"{folder} must be absent or of an interrupted run, but holds other files (first: "
            f"{foreign.name}): move it elsewhere."
        )


def _first_foreign(folder: Path) -> Path | None:
    if not folder.is_dir():
        return folder
    own = _own_files(folder)
    return next(
        (p for p in sorted(folder.rglob("*")) if p.is_symlink() or not (p.is_dir() or p in own)),
        None,
    )


def _own_files(folder: Path) -> set[Path]:
    """The files below a partial folder that have the names of a preparation's."""
    return {
        path
        for path in folder.rglob("*")
        if not path.is_dir()
        and (
            UNFINISHED.fullmatch(path.name)
            or OWN_FILES.fullmatch(path.relative_to(folder).as_posix())
        )
    }


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
