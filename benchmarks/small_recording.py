"""What process.py waits for on a small recording: imports, worker processes, or other programs.

    python benchmarks/small_recording.py ROADSCENE [--rounds 3] [--size 256]

Each row is a whole command: seconds from its start to its end, and seconds of processor time of
all its processes. If the first are more than the second, other programs had the processors, or it
waited for a disk. `import` is what any preparation imports; the rest of a row beyond it is work,
and with more workers their start, each of which imports the same again.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PROCESS = Path(__file__).parents[1] / "process.py"
IMPORT = "import thermal_search.preparation.prepare"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roadscene", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    prepare = [str(PROCESS), str(args.roadscene), "OUTPUT", "--size", str(args.size)]
    commands: dict[str, Sequence[str]] = {
        "help": [str(PROCESS), "--help"],
        "import": ["-c", IMPORT],
        "process.py": prepare,
        "process.py --workers 1": [*prepare, "--workers", "1"],
        "process.py --workers 2": [*prepare, "--workers", "2"],
    }
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():  # interleaved
            figures[name].append(timed(command))
    print("| Command | Seconds | Processor seconds |")
    print("|---|---|---|")
    for name, rounds in figures.items():
        print(f"| {name} | " + " | ".join(map(described, zip(*rounds, strict=True))) + " |")
    print(
        f"load of the machine (1 minute): {os.getloadavg()[0]:.2f} of {os.cpu_count()} processors"
    )


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and processor seconds of a Python command; OUTPUT becomes a new folder."""
    with tempfile.TemporaryDirectory() as folder:
        words = [word if word != "OUTPUT" else f"{folder}/data" for word in command]
        before, began = os.times(), time.monotonic()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        seconds, after = time.monotonic() - began, os.times()
    spent = after.children_user + after.children_system
    return seconds, spent - before.children_user - before.children_system


def described(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
