"""prepare() in a process of its own: met by a signal at its n-th step, or short of room."""

import ctypes
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
NEW_MOUNTS = 0x20000  # CLONE_NEWNS


def start(source, output, *, told=None, step=0, signal=0, largest_file=0, **ways):
    """The process, started, which `signal` meets just before a step.

    `told`, a file, gets the number of steps, or a DatasetError's sentence.
    """
    return _start(_run, source, output, told, step, signal, largest_file, ways)


def start_on_small_disk(source, disk, kept, told, *, room, **ways):
    """Prepares on a new disk of `room` bytes, and again on more, which only this process sees.

    `told` gets what was left and said at first, or why nothing could be mounted; `kept` is the
    dataset of the second time.
    """
    return _start(_run_short, source, disk, kept, told, room, ways)


def wait_until_stopped(process):
    status = Path(f"/proc/{process.pid}/stat")
    while status.read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.01)


def _start(target, *arguments):
    # The workers' own server: it has imported what takes seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thermal_search.preparation.prepare"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def _run(source, output, told, step, signal, largest_file, ways):
    seen = 0

    def count(event, arguments):
        nonlocal seen
        within = event in ("os.remove", "os.rmdir") and arguments[1] >= 0  # of an open folder
        if event in STEPS and (within or str(output) in str(arguments[0])):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal)

    sys.addaudithook(count)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    answer = _prepare(source, output, ways) or str(seen)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if told:
        told.write_text(answer)


def _run_short(source, disk, kept, told, room, ways):
    def mount(*arguments):
        subprocess.run(["mount", *arguments], check=True, capture_output=True)

    disk.mkdir()
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS):
            raise OSError(ctypes.get_errno(), "unshare")
        mount("--make-rprivate", "/")
        mount("-t", "tmpfs", "-o", f"size={room}", "none", str(disk))
    except (OSError, subprocess.CalledProcessError) as error:
        told.write_text(f"cannot mount: {error}")
        return
    answer = _prepare(source, disk / "data", ways)
    told.write_text(f"{os.listdir(disk)} {answer}")
    mount("-o", "remount,size=64m", str(disk))
    if not _prepare(source, disk / "data", ways):
        shutil.copytree(disk / "data", kept)


def _prepare(source, output, ways):
    """The sentence of a DatasetError; nothing where there is none."""
    from thermal_search.errors import DatasetError
    from thermal_search.preparation.prepare import prepare

    try:
        prepare(source, output, workers=1, **ways)
    except DatasetError as error:
        return str(error)
    return ""
