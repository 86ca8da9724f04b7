"""Where sockets can be: the system limits their paths to about a hundred characters, and the name
of a temporary folder (TMPDIR) may be longer than that."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Generator

MAX_SOCKET_PATH = 103 if sys.platform == "darwin" else 107
"""Bytes of a socket's path (sys/un.h)."""

SHORT_FOLDER = "/tmp"


def short_folder_for(socket: str) -> str | None:
    """A temporary folder in which a path such as `socket` is short enough for one; None if it is in
    the usual one."""
    usual = os.path.join(tempfile.gettempdir(), socket)
    if len(os.fsencode(usual)) <= MAX_SOCKET_PATH or not os.path.isdir(SHORT_FOLDER):
        return None
    return SHORT_FOLDER


@contextlib.contextmanager
def temporary_folder_for(socket: str) -> Generator[None]:
    """A context in which `tempfile` makes files where a path such as `socket` is short enough."""
    before = tempfile.tempdir
    tempfile.tempdir = short_folder_for(socket) or before
    try:
        yield
    finally:
        tempfile.tempdir = before
