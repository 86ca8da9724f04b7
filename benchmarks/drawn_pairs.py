"""Pairs of drawn scenes in memory, for benchmarks: no Ray, no preparation, no files.

    python benchmarks/drawn_pairs.py FILE.png [--size 64]

draws a sheet of them, RGB above thermal.
"""

import argparse
import multiprocessing
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from thermal_search.data.frames import EvaluationPairs, Frames, WorkerFrames
from thermal_search.demo.scenes import draw_drive
from thermal_search.pair_alignment import PairAlignment

ENLARGED = 1.28
"""Height of the drawn RGB image for each pixel of the size; the thermal image has 0.8 of it."""


def draw_pairs(
    size: int, recordings: range, frames: int, *, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """`frames` pairs of each of these recordings: RGB [n, 3, size, size], thermal [n, 1, ...]."""
    rgb = np.empty((len(recordings) * frames, 3, size, size), np.uint8)
    thermal = np.empty((len(recordings) * frames, 1, size, size), np.uint8)
    row = 0
    for number in recordings:
        for scene in draw_drive(seed, number, frames, height=round(ENLARGED * size)):
            small = scene.rgb.resize((size, size), Image.Resampling.BICUBIC)
            rgb[row] = np.asarray(small).transpose(2, 0, 1)
            thermal[row, 0] = np.asarray(scene.thermal.resize((size, size), Image.Resampling.BOX))
            row += 1
    return rgb, thermal


def drawn_frames(
    size: int,
    *,
    recordings: int = 50,
    frames: int = 40,
    validation: int = 12,
    seed: int = 0,
    processes: int = 1,
) -> WorkerFrames:
    """Training pairs of `recordings`, and validation pairs of `validation` others that training
    never sees, a quarter as many of each."""
    counts = [frames] * recordings + [max(frames // 4, 1)] * validation
    jobs = [(size, range(n, n + 1), count, seed) for n, count in enumerate(counts)]
    if processes > 1:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            drawn = pool.map(_draw_job, jobs, chunksize=1)
    else:
        drawn = [_draw_job(job) for job in jobs]
    training = _frames(*_joined(drawn[:recordings]))
    validated = _frames(*_joined(drawn[recordings:]))
    nothing = _frames(
        np.empty((0, 3, size, size), np.uint8), np.empty((0, 1, size, size), np.uint8)
    )
    return WorkerFrames(
        size,
        training,
        training,
        EvaluationPairs(*validated, 0),
        EvaluationPairs(*nothing, 0),
        PairAlignment(method="none", layout="drawn"),
    )


def _draw_job(job: tuple[int, range, int, int]) -> tuple[np.ndarray, np.ndarray]:
    size, recordings, frames, seed = job
    return draw_pairs(size, recordings, frames, seed=seed)


def _joined(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    rgb, thermal = zip(*pairs, strict=True)
    return np.concatenate(rgb), np.concatenate(thermal)


def _frames(rgb: np.ndarray, thermal: np.ndarray) -> tuple[Frames, Frames]:
    size = rgb.shape[-1]
    return Frames([rgb], size=size, channels=3), Frames([thermal], size=size, channels=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--recordings", type=int, default=8)
    args = parser.parse_args()
    began = time.process_time()
    rgb, thermal = (torch.from_numpy(a) for a in draw_pairs(args.size, range(args.recordings), 4))
    seconds = time.process_time() - began
    print(f"{1000 * seconds / len(rgb):.1f} ms of CPU time a pair at {args.size} px")
    strips = [
        torch.cat(list(images[::4].expand(-1, 3, -1, -1)), dim=2) for images in (rgb, thermal)
    ]
    Image.fromarray(torch.cat(strips, dim=1).permute(1, 2, 0).numpy()).save(args.file)


if __name__ == "__main__":
    main()
