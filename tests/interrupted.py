"""prepare() in a process of its own, interrupted at its n-th step or short of space."""

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


def start(source, output, *, report=None, step=0, signal=0, largest_file=0, **settings):
    """Starts a process that sends itself `signal` just before a step.

    It writes the number of steps, or a DatasetError's sentence, to the file `report`.
    """
    return _start(_run, source, output, report, step, signal, largest_file, settings)


def start_on_small_disk(source, disk, copy, report, *, room, **settings):
    """Prepares on a disk of `room` bytes that only this process sees, and again after it has grown.

    The file `report` gets the disk's content and the first run's sentence, or why nothing could be
    mounted; `copy` gets the dataset of the second run.
    """
    return _start(_run_short, source, disk, copy, report, room, settings)


def wait_until_stopped(process):
    status = Path(f"/proc/{process.pid}/stat")
    while status.read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.01)


def _start(target, *arguments):
    # The server that the workers use too: it has imported what takes seconds.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["thermal_search.preparation.prepare"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def _run(source, output, report, step, signal, largest_file, settings):
    steps = 0

    def count(event, arguments):
        nonlocal steps
        is_relative = event in ("os.remove", "os.rmdir") and arguments[1] >= 0  # to an open folder
        if event in STEPS and (is_relative or str(output) in str(arguments[0])):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal)

    sys.addaudithook(count)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    answer = _prepare(source, output, settings) or str(steps)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if report:
        report.write_text(answer)


def _run_short(source, disk, copy, report, room, settings):
    def mount(*arguments):
        subprocess.run(["mount", *arguments], check=True, capture_output=True)

    disk.mkdir()
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(NEW_MOUNTS):
            raise OSError(ctypes.get_errno(), "unshare")
        mount("--make-rprivate", "/")
        mount("-t", "tmpfs", "-o", f"size={room}", "none", str(disk))
    except (OSError, subprocess.CalledProcessError) as error:
        report.write_text(f"cannot mount: {error}")
        return
    answer = _prepare(source, disk / "data", settings)
    report.write_text(f"{os.listdir(disk)} {answer}")
    mount("-o", "remount,size=64m", str(disk))
    if not _prepare(source, disk / "data", settings):
        shutil.copytree(disk / "data", copy)


def _prepare(source, output, settings):
    """The sentence of a DatasetError; empty if there is none."""
    from thermal_search.errors import DatasetError
    from thermal_search.preparation.prepare import prepare
    from thermal_search.preparation.settings import PreparationSettings

    try:
        prepare(source, output, PreparationSettings(workers=1, **settings))
    except DatasetError as error:
        return str(error)
    return ""
