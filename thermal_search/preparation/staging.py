"""Recordings and datasets in a bucket: fetched before, sent after, on a disk in between.

Layouts look at many files again and again, and shards are checked, counted and drawn from: on a
disk that is quick and goes on where it was. A bucket sees whole files, and the manifest last.
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
from thermal_search.preparation.prepare import PLAN
from thermal_search.storage import Location

AT_ONCE = 16
Item = TypeVar("Item")


def stage(
    source: Location,
    output: Location,
    scratch: Path | None,
    prepare: Callable[[Path, Path], Manifest],
) -> Manifest:
    """Lets `prepare` work on this disk, wherever the recording is and the dataset shall be.

    `scratch` holds what is fetched and not yet sent, and is removed at the end; None: beside us,
    named after the output.
    """
    if source.local and output.local:
        return prepare(source.local, output.local)
    scratch = scratch or Path(f"{output.name}.scratch")
    folder = source.local or fetch(source, scratch / "source" / source.name)
    dataset = output.local or scratch / "dataset" / output.name
    manifest = prepare(folder, dataset)
    if not output.local:
        plan = output / PLAN
        if plan.exists() and plan.read_text() != (dataset / PLAN).read_text():
            raise DatasetError(f"{output} holds another dataset: choose another place.")
        publish(dataset, output)
    shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def fetch(source: Location, folder: Path) -> Path:
    """Every file below a bucket's folder, into one on this disk; what is there stays."""
    places = source.list(deep=True)
    if not places:
        raise DatasetError(f"{source} must be a folder with a recording, but nothing is there.")

    def fetch_one(place: Location) -> None:
        target = folder / _below(place, source)
        if target.exists():
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.fetching-{os.getpid()}")
        with place.open_input() as stream, partial.open("wb") as file:
            shutil.copyfileobj(stream, file)
        # A bucket tells no time of a file that would be the same on every machine.
        os.utime(partial, (0, 0))
        partial.replace(target)

    _all(fetch_one, places, "Fetching")
    return folder


def publish(folder: Path, target: Location) -> None:
    """A prepared dataset into a bucket; until its manifest arrives there is none."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)

    def send(path: Path) -> None:
        place = target / path.relative_to(folder).as_posix()
        with place.open_output() as stream, path.open("rb") as file:
            shutil.copyfileobj(file, stream)

    _all(send, paths, "Sending")
    send(folder / FILE)


def _below(place: Location, source: Location) -> PurePosixPath:
    relative = PurePosixPath(place.path).relative_to(source.path)
    if ".." in relative.parts or relative.is_absolute():
        raise DatasetError(f"{place} leads out of {source}: rename it.")
    return relative


def _all(work: Callable[[Item], None], items: Iterable[Item], told: str) -> None:
    listed = list(items)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in track(pool.map(work, listed), told, total=len(listed), transient=True):
            pass
