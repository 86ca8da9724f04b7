"""Files on a disk that appear complete or not at all, and never by way of somebody else's file."""

import contextlib
import os
import re
import secrets
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import BinaryIO

UNFINISHED = re.compile(r"\.unfinished-[0-9a-f]{16}")
"""Names of the temporary files that a killed process leaves."""


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Removes those of the files that a killed process has left unfinished."""
    for path in paths:
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path, *, make_folder: bool = True) -> Generator[BinaryIO]:
    """A new file to write, which replaces the one at `path` when the block ends without an error.

    Its name cannot be guessed, and it is created exclusively: neither a file nor a link that is
    already there is ever written to. A link at `path` is replaced, not followed.

    Args:
        make_folder: whether to make the file's folder. Else FileNotFoundError if there is none.
    """
    if make_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{secrets.token_hex(8)}")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(unfinished, flags, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
