"""Private memory of every process on the head of a cluster, while a search trains.

    python benchmarks/head_memory.py DATASET --slots 4

The head has no CPUs, as in the files for clouds: all that may leave it trains on the other node.
Both are on this machine. What grows with the slots is measured for each; the last line says what
a head with many slots needs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from ray.cluster_utils import Cluster

from thermal_search.errors import SearchError
from thermal_search.tuning.record import SearchRecord

IMAGES, EVERY = 100_000, 32
MANY = 100
"""Slots that the table is extended to."""


def private_megabytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def children(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started."""
    for entry in Path("/proc").iterdir():
        try:
            stat = (entry / "stat").read_text() if entry.name.isdigit() else ""
        except OSError:
            continue  # it has ended
        if stat and int(stat.rpartition(")")[2].split()[1]) == pid:
            yield int(entry.name)
            yield from children(int(entry.name))


def name_of(pid: int) -> str:
    arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    title = arguments[0].decode().split(":actor")[0]
    if title.startswith("ray::"):
        return title.split(".")[0]
    if b"-c" in arguments:
        return "python -c (modules of the dashboard)"
    script = next((a for a in arguments[1:] if a.endswith(b".py")), arguments[0])
    return Path(script.decode()).name


def train(folder: Path, arguments: argparse.Namespace, address: str) -> "subprocess.Popen[bytes]":
    """Starts a search whose trials do not end, and waits until every slot has trained."""
    output = folder / "search"
    command = [
        sys.executable, "-m", "thermal_search.cli", "search", "--data", str(arguments.dataset),
        "--output", str(output), "--address", address, "--architectures", "dcgan",
        "--fix", "dcgan.width=32,dcgan.batch_size=8", "--trials", "1000", "--images", str(IMAGES),
        "--evaluate-every", str(EVERY), "--slots", str(arguments.slots), "--scheduler", "none",
        "--features", "efficientnet-lite0",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)
    while True:
        time.sleep(2)
        if driver.poll() is not None:
            sys.exit((folder / "log").read_text())
        try:
            trials = SearchRecord.load(output).trials.values()
        except SearchError:
            continue  # it has not begun
        if sum(len(trial.history) > 0 for trial in trials) == arguments.slots:
            return driver


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--slots", type=int, default=4)
    arguments = parser.parse_args()
    os.environ |= {"RAY_memory_monitor_refresh_ms": "0", "RAY_worker_niceness": "0"}
    cluster = Cluster()
    driver = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            head = cluster.add_node(num_cpus=0, object_store_memory=200_000_000)
            cluster.add_node(num_cpus=arguments.slots, object_store_memory=200_000_000)
            driver = train(Path(folder), arguments, str(cluster.address))
            started = [info.process.pid for infos in head.all_processes.values() for info in infos]
            pids = {pid for parent in started for pid in (parent, *children(parent))}
            sizes: dict[str, list[float]] = defaultdict(list)
            for pid in pids:
                sizes[name_of(pid)].append(private_megabytes(pid))
            sizes["the search itself"].append(private_megabytes(driver.pid))
        finally:
            if driver:
                driver.kill()
                driver.wait()
            cluster.shutdown()
    fixed = each = 0.0
    print("| Process on the head | Number | MB each |\n|---|---|---|")
    for name, found in sorted(sizes.items(), key=lambda item: -sum(item[1])):
        print(f"| {name} | {len(found)} | {sum(found) / len(found):.0f} |")
        if len(found) == arguments.slots > 1:
            each += sum(found) / len(found)
        else:
            fixed += sum(found)
    total = (fixed + MANY * each) / 1000
    print(
        f"{arguments.slots} slots: {fixed:.0f} MB, and {each:.0f} MB for each slot: "
        f"{total:.1f} GB with {MANY} slots"
    )


if __name__ == "__main__":
    main()
