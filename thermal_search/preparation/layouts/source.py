"""The untrusted source folder: nothing outside of it is opened, and no content raises.

Every fault is listed with its file and its reason in `SourceContents.unusable_files`.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from thermal_search.errors import DatasetError
from thermal_search.image_files import SUFFIXES
from thermal_search.preparation.layouts.contents import SourceContents

MAX_LIST_BYTES = 2**30
"""FLIR ADAS v2's index.json has about 400 MB with its annotations; no genuine list is larger."""

LEADS_OUT = "a link that leads out of the recording"
NOT_AN_IMAGE = "not an image, by its name"


class Source:
    """A recording's folder, and what has been read from it."""

    def __init__(self, root: Path, official_only: bool = False) -> None:
        self.root = root
        self.official_only = official_only
        """Whether images that the authors did not pair stay without a partner."""

        self.real_root = root.resolve()
        self.contents = SourceContents()

    def holds(self, path: Path) -> bool:
        """Whether `path`, links followed, is in the recording."""
        try:
            return path.resolve().is_relative_to(self.real_root)
        except (OSError, RuntimeError, ValueError):
            return False  # a cycle of links, or a name that no file can have

    def shown(self, path: Path) -> str:
        """The path below the source, safe to print."""
        return printable(path.relative_to(self.root).as_posix())

    def mark_unusable(self, path: Path | str, reason: str) -> None:
        file = printable(path) if isinstance(path, str) else self.shown(path)
        self.contents.unusable_files.append((file, printable(reason)))

    def images(self, folder: Path) -> list[Path]:
        """Images of a folder, sorted by name; empty if there is no folder."""
        if not folder.is_dir():
            return []
        if not self.holds(folder):
            self.mark_unusable(folder, LEADS_OUT)
            return []
        images: list[Path] = []
        # The folder was checked, so only a link in it can lead out: others need no access to disk.
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if not entry.name.startswith(".") and not entry.is_dir(follow_symlinks=False):
                    path = folder / entry.name
                    if fault := self._fault(entry, path):
                        self.mark_unusable(path, fault)
                    elif path.suffix.lower() in SUFFIXES:
                        images.append(path)
        return images

    def _fault(self, entry: os.DirEntry[str], path: Path) -> str:
        """Why a file is unusable; empty for an image and for a file that belongs beside images."""
        if path.suffix.lower() not in SUFFIXES:
            return "" if path.suffix.lower() in IGNORED_SUFFIXES else NOT_AN_IMAGE
        if not _is_text(entry.name):
            return "a name that is not UTF-8"
        if entry.is_symlink() and not self.holds(path):
            return LEADS_OUT
        return "" if entry.is_file() else "not a file"

    def by_name(self, folder: Path) -> dict[str, Path]:
        return {path.name: path for path in self.images(folder)}

    def by_stem(self, folder: Path) -> dict[str, Path]:
        """Images by name without extension; a second image of a stem is unusable."""
        stems: dict[str, Path] = {}
        for path in self.images(folder):
            if stems.setdefault(path.stem, path) is not path:
                self.mark_unusable(path, "a second file of this stem")
        return stems

    def read_json(self, path: Path, keep: Callable[[dict[str, Any]], Any] | None = None) -> Any:
        """The content of a JSON file; DatasetError if it is not JSON.

        `keep` replaces each object as soon as it is parsed, so that large files take little memory.
        """
        text = self.read_text(path)
        try:
            return json.loads(text, object_hook=keep)
        except (ValueError, RecursionError) as error:
            raise DatasetError(
                f"{path} must be JSON, but is not ({_short(error)}): unpack the archive again."
            ) from None

    def read_lines(self, path: Path) -> list[str]:
        """The lines of a text file, stripped, without empty ones."""
        return [line.strip() for line in self.read_text(path).splitlines() if line.strip()]

    def read_text(self, path: Path) -> str:
        # The map of FLIR ADAS v2 may be next to the recording.
        if not self.holds(path) and path.resolve().parent != self.real_root.parent:
            raise DatasetError(f"{path} must be in the recording, but is {LEADS_OUT}.")
        try:
            if path.stat().st_size > MAX_LIST_BYTES:
                raise DatasetError(f"{path} must be a list of files, but is larger than 1 GiB.")
            return path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{path} must be readable text, but is not ({_short(error)}): unpack the archive "
                "again."
            ) from None


IGNORED_SUFFIXES = {
    ".json",
    ".txt",
    ".tsv",
    ".csv",
    ".xml",
    ".md",
    ".db",
    ".ini",
    ".npy",
    ".zip",
    "",
}
"""Suffixes of files that are commonly next to images, and are ignored."""


def plain_name(name: object) -> str | None:
    """`name` if it is the name of a file without any folder; else None."""
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or len(name.encode(errors="replace")) > 255
    ):
        return None
    return None if any(bad in name for bad in ("/", "\\", "\0")) else name


def printable(text: str) -> str:
    """A text from the recording with control characters escaped, safe to print and to write."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode-escape").decode()
        for letter in text
    )


def text(record: object, key: str) -> str:
    """The text at a key of a JSON object; empty if either has another type."""
    value = record.get(key) if isinstance(record, Mapping) else None  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, str) else ""


def items(record: object, key: str) -> list[Any]:
    """The list at a key of a JSON object; empty if either has another type."""
    value = record.get(key) if isinstance(record, Mapping) else None  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _short(error: Exception) -> str:
    message = str(error)
    return message if len(message) < 200 else f"{message[:200]}..."
