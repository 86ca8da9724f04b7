"""A trial's state on a disk or in a bucket: complete or absent, and exact.

    TRIAL/state-00000300/shared.pt     what all workers have in common
    TRIAL/state-00000300/worker-1.pt   what only worker 1 has: random state, position in the data
    TRIAL/state-00000300/commit.json   the names of its files, written when all of them exist
    TRIAL/generator.pt                 the generator of the last evaluation, to be exported

A bucket cannot rename a folder, so a file that is written last commits a state. The two latest ones
are kept, and those that other trials may continue from. Everything is tensors and plain values, so
that loading never runs code.
"""

import errno
import json
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Annotated, Any, BinaryIO
from zipfile import ZipFile

import torch
from pydantic import Field
from torch import Tensor

from thermal_search.documents import Section
from thermal_search.errors import SearchError, StorageError
from thermal_search.images import Temperatures
from thermal_search.pair_alignment import PairAlignment
from thermal_search.storage import Location, describe_fault

log = logging.getLogger(__name__)

State = dict[str, Any]
GENERATOR = "generator.pt"
COMMIT = "commit.json"
STATE = "state-"
KEPT_STATES = 2
"""A disk may damage the latest state."""

OF_THE_WHOLE_DISK = {errno.ENOSPC, errno.ESTALE}
"""Errors that say nothing about the file that was read."""

MAX_DESCRIPTION = 2**20
"""Bytes of the JSON that describes a generator or a state."""

FILE_NAME = re.compile(r"[\w-]+\.pt")
GENERATOR_VERSION = 2
"""Of generator.pt. Files without a version are of releases that did not record the alignment."""

GENERATOR_REMEDY = "restore the file, or search again"
"""The end of a sentence about a generator.pt that cannot be used."""


class GeneratorDescription(Section):
    """How to build a generator, and how it was evaluated: all but its weights."""

    architecture: str
    parameters: dict[str, Any]
    """Fields of the architecture's Config; the others have their defaults."""

    size: Annotated[int, Field(le=4096)]
    """Height and width of its images in pixels."""

    temperatures: Temperatures | None
    """What its images are in degrees Celsius; None if it was trained on 8-bit thermal."""

    alignment: PairAlignment
    """How the pairs that it was trained on were aligned."""

    images: int
    """Images shown in training until its last evaluation."""

    metrics: dict[str, float]
    """The metrics of its last evaluation."""

    protocol: dict[str, str | int]
    """How the metrics were measured."""


class _Writer:
    """A file for torch.save, which hides the error of a full disk behind one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.file.flush()


def save(state: State, path: Location) -> None:
    """Writes one file, in a folder that exists, so that a reader sees the old content or the new,
    never a part.

    Raises OSError or StorageError if the disk or the store refuses.
    """
    with path.open_output(make_folder=False) as file:
        writer = _Writer(file)
        try:
            torch.save(state, writer)  # pyright: ignore[reportArgumentType] - all it calls is here
        except Exception:
            if writer.error:
                raise writer.error from None
            raise


def load(path: Location | Path, device: torch.device | str = "cpu") -> State:
    """The content of one file, with its tensors on `device`."""
    with Location.of(path).open_input() as file:
        _require_stored(file)
        return torch.load(file, map_location=device, weights_only=True)


def _require_stored(file: BinaryIO) -> None:
    """ValueError if a record is not as large as its bytes in the file.

    torch.save compresses nothing. A compressed record of a small file may claim any memory.
    """
    with ZipFile(file) as archive:
        records = archive.infolist()
    size = file.seek(0, os.SEEK_END)
    if any(record.compress_type for record in records) or size < sum(r.file_size for r in records):
        raise ValueError("its records are compressed")
    file.seek(0)


def pending(trial: Location, images: int) -> Location:
    """The folder for a state after so many images; the workers write to it before `commit`."""
    return trial / f"{STATE}{images:08d}"


def commit(folder: Location, names: list[str], also: Iterable[int] = ()) -> None:
    """Makes a written state the latest; keeps the one before and those after `also` images, and
    removes all others. For one worker to call."""
    (folder / COMMIT).write_text(json.dumps(names), make_folder=False)
    kept = {folder, *_committed(folder.parent)[:KEPT_STATES]}
    kept |= {pending(folder.parent, images) for images in also}
    for other in folder.parent.list():
        if other.name.startswith(STATE) and other not in kept:
            remove(other)


def remove(folder: Location) -> None:
    """Removes a state, if there is one."""
    # The commit file first: a state removed only in part must not count as complete.
    (folder / COMMIT).delete()
    folder.delete()


def remove_all(trial: Location) -> None:
    """Removes the states of a trial that nothing continues; its generator stays."""
    for folder in trial.list():
        if folder.name.startswith(STATE):
            remove(folder)


def is_kept(trial: Location, images: int) -> bool:
    """Whether a trial still has its state after so many images."""
    return (pending(trial, images) / COMMIT).exists()


def latest(trial: Location | Path) -> Location | None:
    """The folder of a trial's newest state that can be read, or None.

    A state that is damaged, or the only one that the disk refuses, is logged and passed over.

    Raises OSError or StorageError if the disk or the store refuses.
    """
    refused: OSError | None = None
    for folder in _committed(Location.of(trial)):
        try:
            if _can_be_read(folder):
                return folder
        except OSError as error:
            if error.errno in OF_THE_WHOLE_DISK:
                raise
            reason = describe_fault(error)
            log.warning("%s cannot be read (%s): the state before it is used.", folder, reason)
            refused = refused or error
    if refused:
        raise refused
    return None


def state_after(trial: Location, images: int) -> Location | None:
    """The folder of a trial's state after so many images, or None if there is none that can be
    read. Raises OSError or StorageError if the disk or the store refuses."""
    folder = pending(trial, images)
    return folder if is_kept(trial, images) and _can_be_read(folder) else None


def _can_be_read(folder: Location) -> bool:
    try:
        for name in files_of(folder):
            load(folder / name)
    except FileNotFoundError as error:
        log.warning("%s is incomplete (%s): the state before it is used.", folder, error)
    except (OSError, StorageError):
        raise
    except Exception as error:  # any, from a damaged file
        reason = " ".join(str(error).split())[:200]
        log.warning("%s is damaged (%s): the state before it is used.", folder, reason)
    else:
        return True
    return False


def _committed(trial: Location) -> list[Location]:
    """The folders of a trial's committed states, newest first."""
    folders = [file.parent for file in trial.list(deep=True) if file.name == COMMIT]
    return sorted(folders, key=lambda folder: folder.name, reverse=True)


def files_of(folder: Location) -> list[str]:
    """The names of a committed state's files; all others in its folder are left over."""
    names: Any = json.loads((folder / COMMIT).read_bytes(MAX_DESCRIPTION))
    if not isinstance(names, list) or not all(FILE_NAME.fullmatch(str(name)) for name in names):
        raise ValueError(f"{COMMIT} must be a list of file names")
    return names


def save_generator(
    description: GeneratorDescription, weights: Mapping[str, Tensor], trial: Location
) -> None:
    """Writes TRIAL/generator.pt: what `load_generator` reads."""
    content = description.model_dump() | {"generator": dict(weights)}
    save({"version": GENERATOR_VERSION} | content, trial / GENERATOR)


def load_generator(path: Location) -> tuple[GeneratorDescription, dict[str, Tensor]]:
    """The description and the weights in a trial's generator.pt.

    Raises SearchError with one sentence if there is none, or if it is damaged or another file.
    """
    try:
        content = load(path)
        if (version := content.pop("version", None)) != GENERATOR_VERSION:
            raise ValueError(f"version {version!r:.40}, but this release reads {GENERATOR_VERSION}")
        weights = content.pop("generator")
        if not all(_is_plain(value) for value in weights.values()):
            raise TypeError("its weights are not plain tensors")
        description = GeneratorDescription.model_validate_json(_as_json(content), strict=True)
    except (FileNotFoundError, NotADirectoryError):
        raise SearchError(
            f"{path} is missing, so the search's folder is incomplete: {GENERATOR_REMEDY}."
        ) from None
    except Exception as error:  # any, from the disk or the file
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if isinstance(error, UnpicklingError):
            # PyTorch's own message advises to run the code in the file.
            reason = "it holds more than tensors and plain values"
        raise SearchError(
            f"{path} must be a generator that a search saved, but cannot be read as one "
            f"({reason}): {GENERATOR_REMEDY}."
        ) from None
    return description, weights


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor with one number in memory for each of its elements."""
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )


def _as_json(content: State) -> str:
    """ValueError if it is long: a list that holds another one twice, and so on, has no end."""
    pieces: list[str] = []
    length = 0
    for piece in json.JSONEncoder().iterencode(content):
        length += len(piece)
        if length > MAX_DESCRIPTION:
            raise ValueError(f"its description is longer than {MAX_DESCRIPTION} letters")
        pieces.append(piece)
    return "".join(pieces)
