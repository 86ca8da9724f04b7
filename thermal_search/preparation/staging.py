"""Recordings and datasets in a bucket: downloaded first, prepared on a disk, uploaded last.

Layouts open many files repeatedly, and shards are checked and read again: that is fast on a disk,
and can be resumed there. A bucket receives complete files, and the manifest last.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from rich.progress import track

from thermal_search.atomic_file import replacing
from thermal_search.data.manifest import FILE, Manifest
from thermal_search.errors import DatasetError
from thermal_search.preparation.partial_folder import PLAN
from thermal_search.storage import Location

MARKER = ".thermal-search-scratch.json"
"""The file that marks a scratch folder as ours; it holds the source and the output."""

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

    The files of a bucket are meanwhile in a folder of its own in `scratch` (None: in the current
    folder), named after the output and removed at the end. Nothing else in `scratch` is touched.
    """
    if source.local and output.local:
        return prepare(source.local, output.local)
    _refuse_foreign_output(output)
    with scratch_folder(scratch or Path(), source, output) as folder:
        if output.local and output.local.resolve().is_relative_to(folder.resolve()):
            raise DatasetError(
                f"{output} must not be in {folder}, which is removed: choose another."
            )
        recording = source.local or download(source, folder / "source" / source.name)
        dataset = output.local or folder / "dataset" / output.name
        manifest = prepare(recording, dataset)
        if not output.local:
            upload(dataset, output)
    return manifest


@contextlib.contextmanager
def scratch_folder(scratch: Path, source: Location, output: Location) -> Generator[Path]:
    """The folder of this preparation in `scratch`: a run that fails leaves it to be resumed."""
    folder = scratch / f"{output.name}.scratch"
    job = f"{json.dumps({'source': str(source.absolute()), 'output': str(output.absolute())})}\n"
    marker = folder / MARKER
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    if folder.is_symlink() or (folder.exists() and not _is_text(marker, job)):
        raise DatasetError(
            f"{folder} must be absent or of an interrupted run of this command, but is not: move "
            "it elsewhere, or pass another --scratch."
        )
    if folder in made:
        with replacing(marker) as file:
            file.write(job.encode())
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
    for path in made[1:]:
        with contextlib.suppress(OSError):  # Somebody has put a file there.
            path.rmdir()


def _is_text(file: Path, text: str) -> bool:
    try:
        return not file.is_symlink() and file.read_text() == text
    except (OSError, ValueError):
        return False


def _refuse_foreign_output(output: Location) -> None:
    """DatasetError if a bucket's folder holds files, but no plan, which is uploaded first."""
    if not output.local and not (output / PLAN).exists() and (found := output.list(deep=True)):
        raise DatasetError(
            f"{output} must be empty or hold this dataset, but holds other files (first: "
            f"{found[0].name}): choose another output."
        )


def download(source: Location, folder: Path) -> Path:
    """Every file below a bucket's folder, into a folder here; files that exist are kept."""
    files = source.list(deep=True)
    if not files:
        raise DatasetError(f"{source} must be a folder with a recording, but is empty or absent.")

    def download_one(file: Location) -> None:
        target = folder / _relative(file, source)
        if not target.exists():
            with file.open_input() as remote, replacing(target) as local:
                shutil.copyfileobj(remote, local)
        # The plan records files' times, which a download does not keep: the same on every machine.
        os.utime(target, (0, 0))

    _transfer(download_one, files, "Downloading")
    return folder


def upload(folder: Path, target: Location) -> None:
    """A prepared dataset into a bucket: its plan first, and its manifest last.

    DatasetError if another dataset is there.
    """
    plan = target / PLAN
    if plan.exists() and plan.read_text() != (folder / PLAN).read_text():
        raise DatasetError(f"{target} holds another dataset: choose another output.")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())

    def upload_one(path: Path) -> None:
        file = target / path.relative_to(folder).as_posix()
        with file.open_output() as remote, path.open("rb") as local:
            shutil.copyfileobj(local, remote)

    ends = (folder / PLAN, folder / FILE)
    upload_one(ends[0])
    _transfer(upload_one, [path for path in paths if path not in ends], "Uploading")
    upload_one(ends[1])


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
