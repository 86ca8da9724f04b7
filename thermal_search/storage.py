"""Files on a disk, or in a bucket that every machine reaches.

A `Location` is used like a path. On a disk (NFS included) it is one. In a bucket (`s3://`, `gs://`)
it uses pyarrow, retries while the store does not answer, and takes credentials from the environment
only: they are never part of an address, a file or a message.

    s3://bucket/folder?endpoint_override=127.0.0.1:9000&scheme=http&region=eu-central-1
    gs://bucket/folder
    /shared/folder   file:///shared/folder   folder
"""

import contextlib
import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from thermal_search import bucket
from thermal_search.atomic_file import replacing
from thermal_search.errors import StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem
    from pydantic_core import CoreSchema

OPTIONS = {
    "s3": {"endpoint_override", "scheme", "region", "allow_bucket_creation", "tls_ca_file_path"},
    "gs": {"endpoint_override", "scheme", "project_id"},
}
"""Allowed options after the `?` of an address, by pyarrow's names."""

T = TypeVar("T")


def describe_fault(error: OSError | StorageError) -> str:
    """What a disk or a store refuses, in one line."""
    if isinstance(error, StorageError) or not error.strerror:
        return str(error).removesuffix(".") or type(error).__name__
    return f"{error.strerror} ({error.filename})" if error.filename else error.strerror


@dataclass(frozen=True)
class Location:
    """A file or a folder. Immutable and small: workers get a copy and open the store themselves.

    In a bucket folders need not be made: they exist with their files.
    """

    path: str
    """A path on this machine; in a bucket `bucket/key`."""

    scheme: str = ""
    """`s3` or `gs`; empty on a disk."""

    options: str = ""
    """The query of the address, which all locations below it have too."""

    @classmethod
    def of(cls, address: "Location | Path | str") -> "Location":
        """From an address or a path; StorageError if it is neither."""
        if isinstance(address, Location):
            return address
        if isinstance(address, Path) or "://" not in address:
            # A Path has removed one of the slashes.
            if re.match(r"[a-z0-9]+:/[^/]", text := str(address)):
                return cls.of(text.replace(":/", "://", 1))
            return cls(text)
        return _parse(address)

    def __truediv__(self, name: "str | Path") -> "Location":
        base = PurePosixPath(self.path) if self.scheme else Path(self.path)
        return Location(str(base / name), self.scheme, self.options)

    def __fspath__(self) -> str:
        """Lets functions that only work on a disk take it as a path."""
        if self.scheme:
            raise StorageError(f"{self} is in a bucket, but this needs a folder on a disk.")
        return self.path

    def __str__(self) -> str:
        return self.uri if self.scheme else self.path

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> "CoreSchema":
        """A field of a validated model: written as its address, read from an address or a path."""
        from pydantic_core import core_schema

        def parse(value: object) -> Location:
            if not isinstance(value, (str, Path, Location)):
                raise ValueError("a location must be a path or an address")
            try:
                return cls.of(value)
            except StorageError as error:
                raise ValueError(str(error)) from None

        return core_schema.no_info_plain_validator_function(
            parse, serialization=core_schema.to_string_ser_schema()
        )

    @property
    def uri(self) -> str:
        if not self.scheme:
            return Path(self.path).absolute().as_uri()
        path = self.path.replace("%", "%25").replace("?", "%3F")
        return f"{self.scheme}://{path}" + (f"?{self.options}" if self.options else "")

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> "Location":
        base = PurePosixPath(self.path) if self.scheme else Path(self.path)
        return Location(str(base.parent), self.scheme, self.options)

    @property
    def local(self) -> Path | None:
        """The path on this machine; None in a bucket."""
        return None if self.scheme else Path(self.path)

    def absolute(self) -> "Location":
        return self if self.scheme else Location(str(Path(self.path).absolute()))

    @property
    def filesystem(self) -> "FileSystem | None":
        """For callers that use pyarrow themselves, such as Ray: `path` is a path in it.

        None on a disk.
        """
        if not self.scheme:
            return None
        return self._call(lambda store: store)

    def exists(self) -> bool:
        if local := self.local:
            return local.exists()
        return self._info().type.name != "NotFound"

    def is_file(self) -> bool:
        if local := self.local:
            return local.is_file()
        return self._info().type.name == "File"

    def list(self, *, deep: bool = False) -> "list[Location]":
        """The content of a folder, sorted; with `deep` every file below it. [] if there is none."""
        if local := self.local:
            if not local.is_dir():
                return []
            paths = (p for p in local.rglob("*") if p.is_file()) if deep else local.iterdir()
            return [Location(str(path)) for path in sorted(paths)]
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, allow_not_found=True, recursive=deep)
        infos: list[FileInfo] = self._call(lambda store: store.get_file_info(selector))
        return [
            Location(info.path, self.scheme, self.options)
            for info in sorted(infos, key=lambda info: info.path)
            if not (deep and info.type.name == "Directory")
        ]

    def make_folder(self) -> None:
        """In a bucket this only makes the bucket itself, if the address allows it.

        StorageError if the folder cannot be made or is a file.
        """
        if local := self.local:
            try:
                local.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f"{local} must be a folder, but cannot be made ({error.strerror}): choose "
                    "another, or fix it."
                ) from None
        elif "allow_bucket_creation=true" in self.options:
            self._call(lambda store: store.create_dir(self.path.split("/")[0]))

    def make_subfolder(self) -> None:
        """Makes a folder in one that exists; FileNotFoundError if that is gone. Nothing to do in a
        bucket."""
        if local := self.local:
            local.mkdir(exist_ok=True)

    def delete(self) -> None:
        """Removes a file, or a folder with its content, if it exists."""
        if local := self.local:
            if local.is_dir():
                shutil.rmtree(local, ignore_errors=True)
            else:
                local.unlink(missing_ok=True)
            return
        kind = self._info().type.name
        with contextlib.suppress(FileNotFoundError):
            if kind == "Directory":
                self._call(lambda store: store.delete_dir(self.path))
            elif kind == "File":
                self._call(lambda store: store.delete_file(self.path))

    def read_bytes(self, max_bytes: int | None = None) -> bytes:
        """Raises FileNotFoundError if there is no such file, OSError if it has more bytes than
        `max_bytes`."""
        if local := self.local:
            with _open_regular(local) as file:
                size = os.fstat(file.fileno()).st_size
                is_too_large = max_bytes is not None and size > max_bytes
                content = b"" if is_too_large else file.read()
        else:
            limit = None if max_bytes is None else max_bytes + 1
            content = self._call(lambda store: bucket.read(store, self.path, limit))
            is_too_large = max_bytes is not None and len(content) > max_bytes
        if is_too_large:
            raise OSError(errno.EFBIG, f"larger than {(max_bytes or 0) / 2**20:.0f} MiB", str(self))
        return content

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes, *, make_folder: bool = True) -> None:
        """A reader sees the old file or the new one, never a part of it. `make_folder`: as for
        `open_output`."""
        with self.open_output(make_folder=make_folder) as file:
            file.write(content)

    def write_text(self, text: str, *, make_folder: bool = True) -> None:
        self.write_bytes(text.encode(), make_folder=make_folder)

    @contextlib.contextmanager
    def open_input(self) -> Generator[BinaryIO]:
        """The file, readable and seekable; from a bucket it is downloaded to a temporary file."""
        if local := self.local:
            with _open_regular(local) as file:
                yield file
            return
        with tempfile.TemporaryFile() as downloaded:
            self._call(lambda store: bucket.download(store, self.path, downloaded))
            yield downloaded

    @contextlib.contextmanager
    def open_output(self, *, make_folder: bool = True) -> Generator[BinaryIO]:
        """A file to write, which replaces the old one when the block ends without an error.

        Args:
            make_folder: whether to make the file's folder on a disk. Else FileNotFoundError if it
                is gone.

        For a bucket it is written to a temporary file first: pyarrow's streams cannot be aborted,
        and would publish a part of the file if the block failed. The upload can also be repeated.
        """
        if local := self.local:
            try:
                with replacing(local, make_folder=make_folder) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                error.filename = error.filename or str(local)  # a write names no file
                raise
            return
        with tempfile.TemporaryFile() as staged:
            yield staged
            self._call(lambda store: bucket.upload(store, self.path, staged))

    def _info(self) -> "FileInfo":
        return self._call(lambda store: store.get_file_info(self.path))

    def _call(self, request: "Callable[[FileSystem], T]") -> T:
        return bucket.retry(
            str(self),
            lambda: request(bucket.file_system(self.scheme, self.options, self.path.split("/")[0])),
        )


def _open_regular(path: Path) -> BinaryIO:
    """Opens a file to read; OSError for a pipe or a device, which would never end."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def _parse(address: str) -> Location:
    # No message repeats an address before it is known to hold no password.
    try:
        # A `#` is a part of a name, in buckets and on disks.
        parts = urlsplit(address, allow_fragments=False)
        _ = parts.port
    except ValueError:
        raise StorageError(
            "A storage address must have the form s3://bucket/folder, but one cannot be understood."
        ) from None
    if parts.password is not None or parts.username is not None:
        raise StorageError(
            f"A {parts.scheme}:// address must not hold a user or a password, because addresses "
            "are written to files: put credentials into the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY; GOOGLE_APPLICATION_CREDENTIALS)."
        )
    if parts.scheme == "file":
        if parts.query or parts.netloc not in ("", "localhost") or parts.path[:1] != "/":
            raise StorageError(
                "A file:// address must have the form file:///folder, with a ? as %3F: pass the "
                "path itself instead."
            )
        return Location(unquote(parts.path))
    if parts.scheme not in OPTIONS:
        raise StorageError(
            f"{parts.scheme}:// is not a known storage: pass s3://bucket/folder, "
            "gs://bucket/folder or a path."
        )
    options = parse_qsl(parts.query, keep_blank_values=True)
    for name, _ in options:
        if name not in OPTIONS[parts.scheme]:
            raise StorageError(
                f"A {parts.scheme}:// address must not have {name}= after its ?: known are "
                f"{', '.join(sorted(OPTIONS[parts.scheme]))}."
            )
    if not parts.netloc or parts.path[:1] not in ("", "/"):
        raise StorageError(
            f"{parts.scheme}:// needs a bucket, such as {parts.scheme}://bucket/folder."
        )
    path = str(PurePosixPath(parts.netloc, *PurePosixPath(unquote(parts.path)).parts[1:]))
    if ".." in PurePosixPath(path).parts:
        raise StorageError(f"A {parts.scheme}:// address must not hold '..'.")
    return Location(path, parts.scheme, urlencode(sorted(options), safe=":/"))
