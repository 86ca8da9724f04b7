"""Recordings and datasets in a bucket: downloaded first, prepared on a disk, uploaded last.

Layouts open many files repeatedly, and shards are checked and read again: that is fast on a disk,
and can be resumed there. A bucket receives complete files, and the manifest last.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from rich.progress import track

from thermal_search.data.manifest import FILE, Manifest
from thermal_search.errors import DatasetError
from thermal_search.preparation.partial_folder import PLAN
from thermal_search.storage import Location

TRANSFERS = 16
"""Files that are transferred at once."""

Item = TypeVar("Item")


def stage(
    source: Location,
    output: Location,
    scratch: Path | None,
    prepare: Callable[[Path, Path], Manifest],
) -> Manifest:
    """Calls `prepare` with folders of this machine, wherever the recording and the dataset are.

    `scratch` holds the files of a bucket meanwhile and is removed at the end; None: a folder in the
    current one, named after the output.
    """
    if source.local and output.local:
        return prepare(source.local, output.local)
    scratch = scratch or Path(f"{output.name}.scratch")
    folder = source.local or download(source, scratch / "source" / source.name)
    dataset = output.local or scratch / "dataset" / output.name
    manifest = prepare(folder, dataset)
    if not output.local:
        plan = output / PLAN
        if plan.exists() and plan.read_text() != (dataset / PLAN).read_text():
            raise DatasetError(f"{output} holds another dataset: choose another output.")
        upload(dataset, output)
    shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def download(source: Location, folder: Path) -> Path:
    """Every file below a bucket's folder, into a folder here; files that exist are kept."""
    files = source.list(deep=True)
    if not files:
        raise DatasetError(f"{source} must be a folder with a recording, but is empty or absent.")

    def download_one(file: Location) -> None:
        target = folder / _relative(file, source)
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
        with file.open_input() as remote, partial.open("wb") as local:
            shutil.copyfileobj(remote, local)
        # The plan records files' times, which a download does not keep: the same on every machine.
        os.utime(partial, (0, 0))
        partial.replace(target)

    _transfer(download_one, files, "Downloading")
    return folder


def upload(folder: Path, target: Location) -> None:
    """A prepared dataset into a bucket; it exists there once its manifest has arrived."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)

    def upload_one(path: Path) -> None:
        file = target / path.relative_to(folder).as_posix()
        with file.open_output() as remote, path.open("rb") as local:
            shutil.copyfileobj(local, remote)

    _transfer(upload_one, paths, "Uploading")
    upload_one(folder / FILE)


def _relative(file: Location, source: Location) -> PurePosixPath:
    relative = PurePosixPath(file.path).relative_to(source.path)
    if ".." in relative.parts or relative.is_absolute():
        raise DatasetError(f"{file} must stay inside {source}, but leads out of it: rename it.")
    return relative


def _transfer(work: Callable[[Item], None], items: Iterable[Item], title: str) -> None:
    listed = list(items)
    with ThreadPoolExecutor(TRANSFERS) as pool:
        for _ in track(pool.map(work, listed), title, total=len(listed), transient=True):
            pass
