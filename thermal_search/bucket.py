"""Requests to an object store: repeated while it does not answer, and explained if it refuses."""

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

from thermal_search.errors import StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

TIMEOUT_S = 180.0
"""How long each read and write waits for a store that does not answer."""

MAX_PAUSE_S = 5.0
COPY_BYTES = 8 * 2**20

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


@cache
def file_system(scheme: str, options: str, bucket: str) -> "FileSystem":
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


def retry(address: str, call: Callable[[], T]) -> T:
    """Calls until the store answers; StorageError if it refuses, or does not answer in time.

    `address`: of the file or the folder that the call is about.
    """
    store = "/".join(address.partition("?")[0].split("/")[:3])
    deadline, pause, has_warned = time.monotonic() + TIMEOUT_S, 0.25, False
    while True:
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError as error:
            for code, sentence in NON_RETRYABLE.items():
                if code in str(error):
                    raise StorageError(f"{address}: {sentence}.") from None
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


def read(store: "FileSystem", path: str, limit: int | None) -> bytes:
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


def download(store: "FileSystem", path: str, target: IO[bytes]) -> None:
    target.seek(0)
    target.truncate()
    with store.open_input_stream(path) as stream:
        shutil.copyfileobj(stream, target, COPY_BYTES)
    target.seek(0)


def upload(store: "FileSystem", path: str, source: IO[bytes]) -> None:
    source.seek(0)
    with store.open_output_stream(path) as stream:
        shutil.copyfileobj(source, stream, COPY_BYTES)
