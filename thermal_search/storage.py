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
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from thermal_search.atomic_file import replacing
from thermal_search.errors import ThermalSearchError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem
    from pydantic_core import CoreSchema

TIMEOUT_S = 180.0
"""How long each read and write waits for a store that does not answer."""

MAX_PAUSE_S = 5.0
COPY_BYTES = 8 * 2**20

OPTIONS = {
    "s3": {"endpoint_override", "scheme", "region", "allow_bucket_creation", "tls_ca_file_path"},
    "gs": {"endpoint_override", "scheme", "project_id"},
}
"""Allowed options after the `?` of an address, by pyarrow's names."""

NON_RETRYABLE = {
    "NO_SUCH_BUCKET": "the bucket does not exist: create it first",
    "ACCESS_DENIED": "access is denied: check the rights of the credentials in the environment",
    "INVALID_ACCESS_KEY_ID": "the access key is unknown: check AWS_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH": "the secret key is wrong: check AWS_SECRET_ACCESS_KEY",
    "EXPIRED_TOKEN": "the session has expired: renew AWS_SESSION_TOKEN",
    "HTTP status 301": "the bucket is in another region: add ?region=... to the address",
    "HTTP status 400": "the store refuses the request: check the address and the credentials",
    "HTTP status 401": "the store does not know the credentials in the environment",
    "HTTP status 403": "access is denied: check the credentials in the environment",
}
"""Errors that a retry cannot change, by a part of pyarrow's message."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class StorageError(ThermalSearchError):
    """A store refuses or does not answer, or an address is invalid."""


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
        limit = None if max_bytes is None else max_bytes + 1
        if local := self.local:
            with _open_regular(local) as file:
                size = os.fstat(file.fileno()).st_size
                content = b"" if limit and size >= limit else file.read()
        else:
            content = self._call(lambda store: _read(store, self.path, limit))
            size = len(content)
        if limit and size >= limit:
            raise OSError(errno.EFBIG, f"larger than {(limit - 1) / 2**20:.0f} MiB", str(self))
        return content

    def read_text(self) -> str:
        return self.read_bytes().decode()

    def write_bytes(self, content: bytes) -> None:
        """A reader sees the old file or the new one, never a part of it."""
        with self.open_output() as file:
            file.write(content)

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode())

    @contextlib.contextmanager
    def open_input(self) -> Generator[BinaryIO]:
        """The file, readable and seekable; from a bucket it is downloaded to a temporary file."""
        if local := self.local:
            with _open_regular(local) as file:
                yield file
            return
        with tempfile.TemporaryFile() as downloaded:
            self._call(lambda store: _download(store, self.path, downloaded))
            yield downloaded

    @contextlib.contextmanager
    def open_output(self) -> Generator[BinaryIO]:
        """A file to write, which replaces the old one when the block ends without an error.

        For a bucket it is written to a temporary file first: pyarrow's streams cannot be aborted,
        and would publish a part of the file if the block failed. The upload can also be repeated.
        """
        if local := self.local:
            try:
                with replacing(local) as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                error.filename = error.filename or str(local)  # a write names no file
                raise
            return
        with tempfile.TemporaryFile() as staged:
            yield staged
            self._call(lambda store: _upload(store, self.path, staged))

    def _info(self) -> "FileInfo":
        return self._call(lambda store: store.get_file_info(self.path))

    def _call(self, request: "Callable[[FileSystem], T]") -> T:
        return _retry(
            self, lambda: request(_filesystem(self.scheme, self.options, self.path.split("/")[0]))
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


@cache
def _filesystem(scheme: str, options: str, bucket: str) -> "FileSystem":
    """Cached per process. The bucket matters only if its region must be resolved."""
    from pyarrow import fs

    arguments: dict[str, Any] = dict(parse_qsl(options))
    if scheme == "gs":
        return fs.GcsFileSystem(**arguments, retry_time_limit=timedelta(seconds=TIMEOUT_S))
    arguments["allow_bucket_creation"] = arguments.get("allow_bucket_creation") == "true"
    if "region" not in arguments and "AWS_DEFAULT_REGION" not in os.environ:
        is_custom = "endpoint_override" in arguments or "AWS_ENDPOINT_URL" in os.environ
        arguments["region"] = "us-east-1" if is_custom else fs.resolve_s3_region(bucket)
    # Few retries of its own: ours warn the user and can be interrupted.
    return fs.S3FileSystem(
        **arguments,
        # A small file is one request, and appears atomically.
        allow_delayed_open=True,
        connect_timeout=5,
        request_timeout=30,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
    )


def _retry(location: Location, call: Callable[[], T]) -> T:
    """Calls until the store answers; StorageError if it refuses, or does not answer in time."""
    store = f"{location.scheme}://{location.path.split('/')[0]}"
    deadline, pause, has_warned = time.monotonic() + TIMEOUT_S, 0.25, False
    while True:
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError as error:
            for code, sentence in NON_RETRYABLE.items():
                if code in str(error):
                    raise StorageError(f"{location}: {sentence}.") from None
            if time.monotonic() + pause > deadline:
                raise StorageError(
                    f"{store} has not answered for {TIMEOUT_S:.0f} s ({_brief(error)}): check the "
                    "address and the network, then run the same command again."
                ) from None
            if not has_warned:
                log.warning("%s does not answer; trying again for up to %.0f s.", store, TIMEOUT_S)
                has_warned = True
        time.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE_S)


def _brief(error: OSError) -> str:
    match = re.search(r"AWS Error ([A-Z_]+( \(HTTP status \d+\))?)", str(error))
    return match[1] if match else " ".join(str(error).split())[:200]


def _read(store: "FileSystem", path: str, limit: int | None) -> bytes:
    """The file as of one moment, unless it is replaced twice while it is read; of a file with more
    than `limit` bytes only so many.

    A stream first requests the size and then that many bytes. If the file has grown meanwhile, the
    content is truncated; if it has shrunk, other bytes follow it.
    """
    while True:
        with store.open_input_stream(path) as stream:
            content = stream.read(limit)
        if len(content) in (limit, store.get_file_info(path).size):
            return content


def _download(store: "FileSystem", path: str, target: IO[bytes]) -> None:
    target.seek(0)
    target.truncate()
    with store.open_input_stream(path) as stream:
        shutil.copyfileobj(stream, target, COPY_BYTES)
    target.seek(0)


def _upload(store: "FileSystem", path: str, source: IO[bytes]) -> None:
    source.seek(0)
    with store.open_output_stream(path) as stream:
        shutil.copyfileobj(source, stream, COPY_BYTES)
