"""`thermal-search fid A B` against `python -m pytorch_fid A B`: whole commands.

    python benchmarks/fid_command.py [--images 200] [--size 256] [--rounds 3] [--threads 2]

Two folders of random PNGs; both commands load one file of random weights from TORCH_HOME, which
does not change their time. The commands alternate, in a new random order each round; seconds are
wall-clock time, from the start of Python to its end.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = {
    "pytorch-fid": [sys.executable, "-m", "pytorch_fid", "--device", "cpu"],
    "thermal-search fid": [sys.executable, "-m", "thermal_search.cli", "fid"],
}


def main() -> None:
    args = parse_args()
    from frechet import describe

    describe(args.threads)
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root, name) for name in ("generated", "real")]
        for seed, folder in enumerate(folders):
            draw(folder, args.images, args.size, seed)
        write_weights(Path(root, "hub", "checkpoints"))
        threads = {name: str(args.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        environment = os.environ | threads | {"TORCH_HOME": root}
        seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
        results: dict[str, str] = {}
        for _ in range(args.rounds):
            for name in random.sample(list(COMMANDS), len(COMMANDS)):
                started = time.perf_counter()
                process = subprocess.run(
                    [*COMMANDS[name], *map(str, folders)],
                    capture_output=True, text=True, check=True, env=environment,
                )  # fmt: skip
                seconds[name].append(time.perf_counter() - started)
                results[name] = process.stdout.strip().splitlines()[-1]
    ratios = sorted(a / b for a, b in zip(*seconds.values(), strict=True))
    print(f"{args.images} and {args.images} images of {args.size} px")
    for name, times in seconds.items():
        print(f"{name}: {statistics.median(times):.1f} s; {results[name]}")
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def draw(folder: Path, count: int, size: int, seed: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir()
    random = np.random.default_rng(seed)
    for number in range(count):
        blocks = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        image = Image.fromarray(blocks).resize((size, size), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05}.png")


def write_weights(folder: Path) -> None:
    import pytorch_fid.inception
    import torch
    from features import random_inception

    from thermal_search.metrics import inception

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    network = random_inception(pytorch_fid.inception)
    torch.save(network.state_dict(), folder / inception.WEIGHTS_FILE)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
