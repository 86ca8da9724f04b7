"""What shows that a file was written by a translation, and of what it was made.

A file with such a mark may be replaced, and need not be made again if its digest is the one that
it would get; any other file is somebody else's.
"""

import hashlib
import io
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from thermal_search.errors import DatasetError
from thermal_search.generator import CONFIG_FILE, WEIGHTS_FILE
from thermal_search.storage import Location
from thermal_search.translation.settings import TranslationSettings

OWN_TEXT = ("Software", "thermal-search translate")
DIGEST_TEXT = "Translation"
"""Texts of every PNG of a translation; the second holds the digest."""

MARK_ID = bytes.fromhex("8f6d1c1b7a4e4f0f9b0de23f5f0a7c11")
"""Ours alone: before the digest in the mark of a video."""

MARK_BYTES = 8 + len(MARK_ID) + 64
TEXT_BYTES = 4096
"""The texts of a PNG of ours are in its first bytes."""

VERSION = 1
"""Rises when equal settings no longer give equal pixels."""

REQUESTS = 16
"""Files of a bucket that are looked at at the same time."""


def digest_of_run(model: Location, settings: TranslationSettings) -> str:
    """Identifies the generator and the settings that decide the pixels."""
    digest = hashlib.sha256(json.dumps([VERSION, settings.recorded()], sort_keys=True).encode())
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        digest.update(hashlib.sha256((model / name).read_bytes()).digest())
    return digest.hexdigest()


def digest_of_image(run: str, content: bytes) -> str:
    """Identifies what one file is made of: a run, and the content of the source's file."""
    return hashlib.sha256(run.encode() + hashlib.sha256(content).digest()).hexdigest()


def digest_of_file(run: str, path: Path) -> str:
    """As `digest_of_image`, of a large file."""
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").digest()
    return hashlib.sha256(run.encode() + content).hexdigest()


def png_texts(digest: str) -> dict[str, str]:
    """The mark of a PNG."""
    return dict([OWN_TEXT, (DIGEST_TEXT, digest)])


def mark_video(path: Path, digest: str) -> None:
    """Appends the mark to a video: a chunk or a box that players skip."""
    content = MARK_ID + digest.encode()
    if path.suffix.lower() == ".avi":
        header = b"JUNK" + len(content).to_bytes(4, "little")
    else:
        header = (8 + len(content)).to_bytes(4, "big") + b"uuid"
    with path.open("ab") as file:
        file.write(header + content)


def existing_digests(targets: list[Location]) -> dict[Location, str]:
    """The digests of the targets that exist, empty for a file without one.

    Raises DatasetError, before anything is written, if one of them is not of a translation.
    """
    with ThreadPoolExecutor(REQUESTS) as pool:
        found = pool.map(_exists, targets)
        existing = [target for target, exists in zip(targets, found, strict=True) if exists]
        marks = list(pool.map(_mark, existing))
    for target, mark in zip(existing, marks, strict=True):
        if mark is None:
            raise DatasetError(
                f"{target} exists and was not written by translate: choose another output, or move "
                "the file elsewhere."
            )
    return {target: mark for target, mark in zip(existing, marks, strict=True) if mark is not None}


def _exists(target: Location) -> bool:
    return os.path.lexists(local) if (local := target.local) else target.exists()


def _mark(target: Location) -> str | None:
    """The digest of a file, empty if it has none; None if the file is not of a translation."""
    is_video = Path(target.path).suffix.lower() != ".png"
    try:
        if local := target.local:
            if local.is_symlink() or not local.is_file():
                return None
            with local.open("rb") as file:
                if is_video:
                    file.seek(max(local.stat().st_size - MARK_BYTES, 0))
                content = file.read(MARK_BYTES if is_video else TEXT_BYTES)
        else:
            content = target.read_bytes()
    except OSError:
        return None
    if is_video:
        mark = content[-MARK_BYTES:][8:]
        return mark[len(MARK_ID) :].decode("ascii", "replace") if mark.startswith(MARK_ID) else None
    return _png_mark(content)


def _png_mark(content: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            is_own = image.info.get(OWN_TEXT[0]) == OWN_TEXT[1]
            return str(image.info.get(DIGEST_TEXT, "")) if is_own else None
    except Exception:  # any, from a file of somebody else
        return None
