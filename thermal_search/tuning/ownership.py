"""One owner: no two searches write to the same output folder, on a disk or in a bucket.

    OUTPUT/owner-TOKEN.json   who holds the folder, rewritten every few seconds while it does

A lock of the operating system holds on one machine only, and a bucket has none. Each process writes
a claim of its own before it looks for those of others: of two that begin at the same moment, at
least one sees the other.
"""

import contextlib
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from thermal_search.documents import Document
from thermal_search.errors import SearchError, StorageError
from thermal_search.storage import Location

PREFIX = "owner-"
HEARTBEAT_S = 10.0
STALE_S = 60.0
"""A claim that was not renewed for so long is of a process that is dead."""

ATTEMPTS = 3
"""Tries of two processes that begin at the same moment and see each other."""


Seconds = Annotated[float, Field(ge=0, lt=1e11)]
"""Since the epoch."""


class Claim(Document):
    """OUTPUT/owner-TOKEN.json."""

    REMEDY: ClassVar[str] = "remove the file if no search runs in this folder"

    version: Literal[1] = 1
    host: str
    boot: str
    """Identifies the host's current run: process ids begin anew after a reboot. Empty if the system
    does not tell, so that only its age says whether the claim counts."""

    process: Annotated[int, Field(ge=1, lt=2**31)]
    began: Seconds
    """When the process claimed the folder."""

    renewed: Seconds
    """When it last did."""

    @classmethod
    def new(cls) -> "Claim":
        now = time.time()
        return cls(
            host=socket.gethostname(), boot=_boot(), process=os.getpid(), began=now, renewed=now
        )

    @property
    def is_live(self) -> bool:
        if self.boot and self.boot == _boot() and not _is_running(self.process):
            return False
        return time.time() - self.renewed < STALE_S


@contextlib.contextmanager
def own(output: Location, report_loss: Callable[[str], None]) -> Generator[None]:
    """Holds an output folder. Raises SearchError if another process holds it.

    A dead owner's claim counts no more after `STALE_S` seconds, at once if it died on this host.
    `report_loss` gets the reason if this process loses the folder: because it was suspended for so
    long that another one took over, or because the folder is gone.
    """
    file = output / f"{PREFIX}{secrets.token_hex(8)}.json"
    claim = _claim(output, file)
    released = threading.Event()

    def renew() -> None:
        while not released.wait(HEARTBEAT_S):
            with contextlib.suppress(OSError, StorageError):  # tried again; trials report faults
                if not file.exists():
                    taken = bool(_others(output))
                    report_loss(
                        f"another process has taken over {output}" if taken else gone(output)
                    )
                    return
                renewed = claim.model_copy(update={"renewed": time.time()})
                renewed.write(file, make_folder=False)

    thread = threading.Thread(target=renew, name="owner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()
        with contextlib.suppress(OSError, StorageError):
            file.delete()


def require_free(output: Location) -> None:
    """Raises SearchError if another process holds an output folder. Writes nothing."""
    if holders := _others(output):
        raise SearchError(_describe(output, holders[0]))


def gone(output: Location) -> str:
    """What has happened to an output folder that lacks the search's files."""
    return f"{output} is no longer the folder it began in: it was renamed, removed or unmounted"


def _claim(output: Location, file: Location) -> Claim:
    for attempt in range(1, ATTEMPTS + 1):
        claim = Claim.new()
        claim.write(file)
        others = _others(output, file)
        if not others:
            return claim
        file.delete()
        holder = min(others, key=lambda other: other.began)
        if attempt == ATTEMPTS or claim.began - holder.began > HEARTBEAT_S:
            raise SearchError(_describe(output, holder))
        time.sleep(random.uniform(0.1, 1.0))
    raise AssertionError


def _others(output: Location, own_file: Location | None = None) -> list[Claim]:
    """The live claims of other processes; removes the dead ones, if there is an own one."""
    others: list[Claim] = []
    for file in output.list():
        if not file.name.startswith(PREFIX) or file == own_file:
            continue
        try:
            claim = Claim.read(file)
        except FileNotFoundError:
            continue
        if claim.is_live:
            others.append(claim)
        elif own_file:
            file.delete()
    return others


def _describe(output: Location, holder: Claim) -> str:
    began = datetime.fromtimestamp(holder.began, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    return (
        f"{output} is held by another search, process {holder.process} on {holder.host}, since "
        f"{began}: wait for its end or stop it. If it is dead, try again in {STALE_S:.0f} s."
    )


def _boot() -> str:
    """The host and its current boot; empty if the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
    except OSError:
        return ""
    # A container shares its host's boot, but not its process ids.
    with contextlib.suppress(OSError):
        boot += " " + os.readlink("/proc/self/ns/pid")
    return f"{socket.gethostname()} {boot}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
