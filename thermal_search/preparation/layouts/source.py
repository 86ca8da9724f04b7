"""The untrusted source folder: nothing outside of it is opened, and no content raises.

Every fault is listed with its file and its reason in `SourceContents.unusable_files`.
"""

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from thermal_search.errors import DatasetError, printable
from thermal_search.image_files import SUFFIXES, UNREAD_SUFFIXES, is_companion, is_image_name
from thermal_search.preparation.layouts.contents import SourceContents
from thermal_search.storage import Location

MAX_LIST_BYTES = 2**30
"""FLIR ADAS v2's index.json has about 400 MB with its annotations; no genuine list is larger."""

MAX_MAP_BYTES = 2**24
"""Of JSON that is parsed as a whole: the map of FLIR ADAS v2 has less than one MB."""

LEADS_OUT = "a link that leads out of the recording"
MAX_NAMED = 5
"""Folders that a note names."""


class Source:
    """A recording's folder, and what has been read from it."""

    def __init__(self, root: Path, official_only: bool = False, follow_links: bool = False) -> None:
        self.root = root
        self.official_only = official_only
        """Whether images that the authors did not pair stay without a partner."""

        self.follow_links = follow_links
        """Whether files that links lead to outside of the recording are read."""

        self.real_root = root.resolve()
        self._read: set[Path] = set()
        """Folders whose images were read."""

        self.contents = SourceContents()

    def holds(self, path: Path) -> bool:
        """Whether `path`, links followed, is in the recording, or may be outside."""
        try:
            if self.follow_links:
                return path.exists()
            return path.resolve().is_relative_to(self.real_root)
        except (OSError, RuntimeError, ValueError):
            return False  # a cycle of links, or a name that no file can have

    def shown(self, path: Path) -> str:
        """The path below the source, safe to print."""
        return printable(path.relative_to(self.root).as_posix())

    def mark_unusable(self, path: Path | str, reason: str) -> None:
        file = printable(path) if isinstance(path, str) else self.shown(path)
        self.contents.unusable_files.append((file, printable(reason)))

    def images(self, folder: Path, *, deep: bool = False) -> list[Path]:
        """Images of a folder, sorted by name; with `deep` also of the folders in it.

        Empty if there is no folder.
        """
        if not folder.is_dir():
            return []
        if not self.holds(folder):
            self.mark_unusable(folder, LEADS_OUT)
            return []
        self._read.add(folder)
        images: list[Path] = []
        # The folder was checked, so only a link in it can lead out: others need no access to disk.
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                if is_companion(entry.name):
                    continue
                if path.is_dir() if entry.is_symlink() else entry.is_dir():
                    is_followed = not entry.is_symlink() or self.follow_links
                    if deep and is_followed and not _is_cycle(path):
                        images += self.images(path, deep=True)
                    elif entry.is_symlink():
                        reason = "a link to a folder" if self.holds(path) else LEADS_OUT
                        self.mark_unusable(path, reason)
                elif fault := self._fault(entry, path):
                    self.mark_unusable(path, fault)
                elif path.suffix.lower() in SUFFIXES:
                    images.append(path)
        return images

    def _fault(self, entry: os.DirEntry[str], path: Path) -> str:
        """Why a file is unusable; empty for an image and for a file that is no image."""
        suffix = path.suffix.lower()
        if suffix in UNREAD_SUFFIXES:
            return f"{suffix} files are not read; convert them to PNG"
        if suffix not in SUFFIXES:
            return ""
        if not _is_text(entry.name):
            return "a name that is not UTF-8"
        if entry.is_symlink() and not self.holds(path):
            return LEADS_OUT
        return "" if entry.is_file() else "not a file"

    def note_unread(self) -> None:
        """Notes the images in folders that the layout does not read."""
        counts: Counter[str] = Counter()
        for folder, folders, files in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not is_companion(name))
            if Path(folder) not in self._read and (n := sum(map(is_image_name, files))):
                counts[self.shown(Path(folder))] = n
        if counts:
            named = [f"{count} in {folder}" for folder, count in counts.items()][:MAX_NAMED]
            more = (
                f" and more in {len(counts) - MAX_NAMED} others" if len(counts) > MAX_NAMED else ""
            )
            self.contents.notes.append(f"Images that were not read: {', '.join(named)}{more}.")

    def by_name(self, folder: Path) -> dict[str, Path]:
        return {composed(path.name): path for path in self.images(folder)}

    def by_stem(self, folder: Path, *, deep: bool = False) -> dict[str, Path]:
        """Images by name without extension; a second image of a stem is unusable.

        With `deep` the names include the folders below `folder`.
        """
        stems: dict[str, Path] = {}
        for path in self.images(folder, deep=deep):
            stem = composed(path.relative_to(folder).with_suffix("").as_posix())
            if stems.setdefault(stem, path) is not path:
                self.mark_unusable(path, "a second file of this stem")
        return stems

    def read_json(self, path: Path, keep: Callable[[dict[str, Any]], Any] | None = None) -> Any:
        """The content of a JSON file; DatasetError if it is not JSON.

        `keep` replaces each object as soon as it is parsed, so that large files take little memory.
        """
        text = self.read_text(path, MAX_LIST_BYTES if keep else MAX_MAP_BYTES)
        try:
            return json.loads(text, object_hook=keep)
        except (ValueError, RecursionError) as error:
            raise DatasetError(
                f"{path} must be JSON, but is not ({_short(error)}): unpack the archive again."
            ) from None

    def read_lines(self, path: Path) -> list[str]:
        """The lines of a text file, stripped, without empty ones."""
        return [line.strip() for line in self.read_text(path).splitlines() if line.strip()]

    def read_text(self, path: Path, max_bytes: int = MAX_LIST_BYTES) -> str:
        # The map of FLIR ADAS v2 may be next to the recording.
        real = Path(os.path.realpath(path))  # unlike `resolve`, of a loop of links too
        if not self.holds(path) and real.parent != self.real_root.parent:
            raise DatasetError(f"{path} must be in the recording, but is {LEADS_OUT}.")
        try:
            if path.stat().st_size > max_bytes:
                raise DatasetError(
                    f"{path} must be a list of files, but is larger than {max_bytes >> 20} MiB: "
                    "unpack the archive again."
                )
            return Location.of(path).read_bytes().decode("utf-8-sig")
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{path} must be readable text, but is not ({_short(error)}): unpack the archive "
                "again."
            ) from None


def composed(name: str) -> str:
    """A name in Unicode's composed form: macOS decomposes the letters of the same name."""
    return unicodedata.normalize("NFC", name)


def plain_name(name: object) -> str | None:
    """`name` if it is the name of a file without any folder; else None."""
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or len(name.encode(errors="replace")) > 255
    ):
        return None
    return None if any(bad in name for bad in ("/", "\\", "\0")) else composed(name)


def text(record: object, key: str) -> str:
    """The text at a key of a JSON object; empty if either has another type."""
    value = record.get(key) if isinstance(record, Mapping) else None  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, str) else ""


def items(record: object, key: str) -> list[Any]:
    """The list at a key of a JSON object; empty if either has another type."""
    value = record.get(key) if isinstance(record, Mapping) else None  # pyright: ignore[reportUnknownVariableType]
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]


def _is_cycle(folder: Path) -> bool:
    """Whether a folder leads to one of those that it is in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _is_text(name: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _short(error: Exception) -> str:
    message = str(error)
    return message if len(message) < 200 else f"{message[:200]}..."
