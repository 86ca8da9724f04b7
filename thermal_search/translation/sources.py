"""Which RGB images a translation reads, and which file each becomes."""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from thermal_search.errors import DatasetError
from thermal_search.image_files import SUFFIXES, UNREAD_SUFFIXES, is_companion
from thermal_search.storage import Location

VIDEO_SUFFIXES = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"}
"""Suffixes of videos, in lower case, that INPUT may have."""

GLOB_CHARACTERS = "*?["


@dataclass(frozen=True)
class Job:
    """One image to translate."""

    source: Location
    target: Location
    name: str
    """How messages name the image: its path below the input."""

    existing: str = ""
    """The digest in the target, if an earlier run has written one."""


@dataclass(frozen=True)
class Sources:
    """The images of an input."""

    jobs: list[Job]
    left_out: list[tuple[str, str]]
    """The names of what looks like an image but is not read, each with the reason."""


def is_video(path: Location) -> bool:
    return PurePath(path.path).suffix.lower() in VIDEO_SUFFIXES


def find_sources(source: Location, output: Location) -> Sources:
    """The images of a file, a folder with its subfolders, or a pattern, with their targets.

    DatasetError if there are none, or if the output is inside the input.
    """
    if source.is_file():
        return Sources([_job_of_file(source, output)], [])
    if output.local and output.local.exists() and not output.local.is_dir():
        raise DatasetError(f"{output} must be a folder, but is a file: choose another output.")
    left_out: list[tuple[str, str]] = []
    if source.scheme:
        _refuse_output_inside(source, output)
        root, files = source, _bucket_files(source)
    elif Path(source.path).is_dir():
        _refuse_output_inside(source, output)
        root, files = source, _folder_files(Path(source.path), left_out)
    elif any(letter in source.path for letter in GLOB_CHARACTERS):
        root, files = _pattern_files(source.path, output, left_out)
    else:
        raise DatasetError(
            f"{source} must be an image, a video, a folder, a pattern or an address of these, but "
            "does not exist."
        )
    relatives: list[str] = []
    for relative in files:
        suffix = PurePosixPath(relative).suffix.lower()
        if is_companion(PurePosixPath(relative).name):
            continue
        if suffix in SUFFIXES:
            relatives.append(relative)
        elif suffix in VIDEO_SUFFIXES:
            left_out.append((relative, "a video; pass it as the input by itself"))
        elif suffix in UNREAD_SUFFIXES:
            left_out.append((relative, f"{suffix} files are not read; convert them to PNG"))
    if not relatives:
        raise DatasetError(
            f"{source} must hold RGB images ({', '.join(sorted(SUFFIXES))}), but holds none"
            + (f" (left out: {left_out[0][0]}, {left_out[0][1]})" if left_out else "")
            + "."
        )
    jobs = [
        Job(root / relative, output / target, relative)
        for relative, target in zip(relatives, _targets(relatives), strict=True)
    ]
    return Sources(jobs, left_out)


def _job_of_file(source: Location, output: Location) -> Job:
    """One image, to a file if the output is named .png, or else into a folder."""
    if PurePath(source.path).suffix.lower() not in SUFFIXES:
        raise DatasetError(
            f"{source} must be an image ({', '.join(sorted(SUFFIXES))}) or a video "
            f"({', '.join(sorted(VIDEO_SUFFIXES))}), but has another suffix: convert it."
        )
    target = output
    if not output.path.lower().endswith(".png") or (output.local and output.local.is_dir()):
        target = output / f"{PurePath(source.path).stem}.png"
    refuse_itself(source, target)
    return Job(source, target, source.name)


def refuse_itself(source: Location, target: Location) -> None:
    """DatasetError if the input would be replaced by its translation."""
    is_same = source == target
    if source.local and target.local and target.local.exists():
        is_same = source.local.samefile(target.local)
    if is_same:
        raise DatasetError(f"{target} must not be the input itself: choose another output.")


def _folder_files(folder: Path, left_out: list[tuple[str, str]]) -> Iterator[str]:
    """The paths of the files in a folder and its subfolders, sorted.

    Links to folders are not followed: they may lead in circles.
    """

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename} cannot be read ({error.strerror}): fix its rights.")

    for place, subfolders, names in os.walk(folder, onerror=refuse):
        subfolders[:] = sorted(name for name in subfolders if not is_companion(name))
        for name in list(subfolders):
            if (path := Path(place, name)).is_symlink():
                subfolders.remove(name)
                reason = "a link to a folder, which is not followed"
                left_out.append((path.relative_to(folder).as_posix(), reason))
        for name in sorted(names):
            yield Path(place, name).relative_to(folder).as_posix()


def _bucket_files(folder: Location) -> Iterator[str]:
    for file in folder.list(deep=True):
        relative = PurePosixPath(file.path).relative_to(folder.path)
        if ".." in relative.parts:
            raise DatasetError(f"{file} must stay inside {folder}, but leads out of it: rename it.")
        if not any(is_companion(part) for part in relative.parts):
            yield relative.as_posix()


def _pattern_files(
    pattern: str, output: Location, left_out: list[tuple[str, str]]
) -> tuple[Location, Iterator[str]]:
    """The folder that a pattern begins with, and the files that match, below it."""
    parts = Path(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if any(c in part for c in GLOB_CHARACTERS))
    root = Path(*parts[:fixed])
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    files: set[str] = set()
    for path in found:
        if path.is_dir():
            below = _folder_files(path, left_out)
            files.update((path / name).relative_to(root).as_posix() for name in below)
        else:
            files.add(path.relative_to(root).as_posix())
    if not files:
        raise DatasetError(f"No file matches {pattern}: correct the pattern, and quote it.")
    if output.local:
        place = output.local.resolve()
        for name in files:
            if (root / name).resolve().is_relative_to(place):
                raise _inside(output)
    return Location(str(root)), iter(sorted(files))


def _refuse_output_inside(root: Location, output: Location) -> None:
    """DatasetError if generated images would be read as RGB images by the next run."""
    if root.scheme != output.scheme:
        return
    if root.local and output.local:
        inside = output.local.resolve().is_relative_to(root.local.resolve())
    else:
        inside = PurePosixPath(output.path).is_relative_to(root.path)
    if inside:
        raise _inside(output)


def _inside(output: Location) -> DatasetError:
    return DatasetError(
        f"{output} must not be the folder of the RGB images, or be in it, because the next run "
        "would read the thermal images too: choose another output."
    )


def _targets(relatives: Sequence[str]) -> list[str]:
    """The path of each thermal image: a.png for a.jpg, but a.jpg.png if there is an a.tif too."""
    paths = [PurePosixPath(relative) for relative in relatives]
    stems = Counter(path.parent / path.stem for path in paths)
    targets = [
        str(path.parent / f"{path.stem if stems[path.parent / path.stem] == 1 else path.name}.png")
        for path in paths
    ]
    by_target: dict[str, str] = {}
    for relative, target in zip(relatives, targets, strict=True):
        if target in by_target:
            raise DatasetError(
                f"{by_target[target]} and {relative} would both become {target}: rename one."
            )
        by_target[target] = relative
    return targets
