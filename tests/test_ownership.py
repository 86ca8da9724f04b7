"""One search at a time in an output folder."""

import queue
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from object_store import object_store

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tuning import ownership
from thermal_search.tuning.ownership import Claim, own

HOLD = """
import sys, time
from thermal_search.storage import Location
from thermal_search.tuning.ownership import own
with own(Location.of(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(output):
    """A process that holds an output folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(output)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def begin(output):
    """Holds an output folder for a moment."""
    with own(output, pytest.fail):
        pass


@pytest.fixture(params=["disk", "bucket"])
def output(request, tmp_path):
    if request.param == "disk":
        yield Location.of(tmp_path / "output")
        return
    with object_store() as server:
        bucket = Location.of(server.uri("team"))
        bucket.make_folder()
        yield bucket / "output"


def test_second_search_is_refused_until_the_first_is_dead(output):
    holder = hold(output)
    try:
        with pytest.raises(SearchError, match=rf"process {holder.pid} on .*since 20.*UTC"):
            begin(output)
    finally:
        holder.kill()
        holder.wait()

    with own(output, pytest.fail):
        assert len(output.list()) == 1
    assert output.list() == []


def test_claim_of_a_dead_host_counts_no_more_after_a_minute(tmp_path):
    output, now = Location.of(tmp_path), time.time()
    for age, is_live in [(70.0, False), (20.0, True)]:
        claim = Claim(host="gone", boot="x", process=1, began=now - 90, renewed=now - age)
        claim.write(output / "owner-old.json")
        assert claim.is_live == is_live
    with pytest.raises(SearchError, match=r"process 1 on gone.*try again in 60 s"):
        begin(output)


def test_hosts_that_tell_no_boot_do_not_compare_their_process_ids(tmp_path, monkeypatch):
    """As two Macs that share a disk."""
    monkeypatch.setattr(ownership, "_boot", lambda: "")
    ended = subprocess.Popen(["true"])
    ended.wait()
    claim = Claim.new().model_copy(update={"host": "another", "process": ended.pid})
    claim.write(Location.of(tmp_path) / "owner-other.json")

    with pytest.raises(SearchError, match=rf"held by another search, process {ended.pid}"):
        begin(Location.of(tmp_path))


def test_of_many_that_begin_at_once_no_two_hold(tmp_path):
    output, holding, most = Location.of(tmp_path), [], []

    def begin():
        try:
            with own(output, pytest.fail):
                holding.append(1)
                most.append(len(holding))
                time.sleep(0.2)
                holding.pop()
        except SearchError:
            pass

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) <= {1}


@pytest.mark.parametrize("is_taken", [True, False])
def test_search_that_loses_its_folder_is_told_why(tmp_path, monkeypatch, is_taken):
    monkeypatch.setattr(ownership, "HEARTBEAT_S", 0.05)
    output, told = Location.of(tmp_path / "output"), queue.Queue()
    output.make_folder()
    with own(output, told.put):
        (file,) = output.list()
        if is_taken:
            Claim.new().write(output / "owner-new.json")
            file.delete()
        else:
            Path(output).rename(tmp_path / "renamed")
        reason = told.get(timeout=10)

    assert ("has taken over" in reason, "it was renamed" in reason) == (is_taken, not is_taken)
    assert Path(output).exists() == is_taken
