"""Speed of image preparation and of reading shards, compared with Pillow, per core.

    python benchmarks/process.py ROADSCENE [--pairs 24] [--rounds 5]

Sources are RoadScene's pairs at FLIR's sizes: RGB 1800 x 1600, JPEG of quality 92; thermal
640 x 512.
All methods take turns on the same frame, in one process with one thread; figures are CPU seconds.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from thermal_search.data.frames import Frames
from thermal_search.data.parquet import frames_of
from thermal_search.preparation.conversion import convert_frame
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.shards import ShardTask, make_shard

SIZE = 256
BATCH = 16
ROWS = 128
"""Pairs in a shard of 256 pixels."""
BICUBIC = Image.Resampling.BICUBIC


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roadscene", type=Path)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        frames = make_sources(args.roadscene, Path(folder) / "raw", args.pairs)
        preparing(frames, Path(folder), args.rounds)
        reading(frames, Path(folder), args.rounds)


def make_sources(roadscene: Path, folder: Path, count: int) -> list[SourceFrame]:
    frames: list[SourceFrame] = []
    for name in ("rgb", "thermal"):
        (folder / name).mkdir(parents=True)
    for path in sorted((roadscene / "visible").iterdir())[:count]:
        rgb, thermal = folder / "rgb" / f"{path.stem}.jpg", folder / "thermal" / f"{path.stem}.jpg"
        with Image.open(path) as image:
            large = image.convert("RGB").resize((1800, 1600), Image.Resampling.LANCZOS)
            # A camera's noise, which an enlarged image lacks and which costs a decoder time.
            noise = np.random.default_rng(0).normal(0, 3, (1600, 1800, 3))
            noisy = (np.asarray(large) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(rgb, quality=92)
        with Image.open(next((roadscene / "infrared").glob(f"{path.stem}.*"))) as image:
            image.convert("L").resize((640, 512), BICUBIC).save(thermal, quality=92)
        frames.append(SourceFrame(rgb, thermal, "recording", path.stem))
    return frames


def with_pillow(frame: SourceFrame) -> tuple[bytes, bytes]:
    pixels: list[bytes] = []
    for path, mode in ((frame.rgb, "RGB"), (frame.thermal, "L")):
        assert path
        with Image.open(path) as image:
            pixels.append(image.convert(mode).resize((SIZE, SIZE), BICUBIC).tobytes())
    return pixels[0], pixels[1]


def with_pillow_to_png(frame: SourceFrame) -> None:
    for pixels, mode in zip(with_pillow(frame), ("RGB", "L"), strict=True):
        Image.frombytes(mode, (SIZE, SIZE), pixels).save(io.BytesIO(), "PNG")


def whole_shard(frames: list[SourceFrame], folder: Path, *, fast: bool) -> None:
    """Everything that a worker of process.py does: resize, score, write, and checksum."""
    task = ShardTask("pairs", "val", 0, frames, {})
    for path in folder.rglob(f"{Path(task.name).name}.*"):
        path.unlink()
    make_shard(
        task, folder=folder, source=folder, settings=PreparationSettings(size=SIZE, fast=fast)
    )


def preparing(frames: list[SourceFrame], folder: Path, rounds: int) -> None:
    exact = PreparationSettings(size=SIZE)
    fast = PreparationSettings(size=SIZE, fast=True)
    methods: dict[str, Callable[[SourceFrame], object]] = {
        "Pillow, PNG": with_pillow_to_png,
        "Pillow, raw": with_pillow,
        "ours": lambda frame: convert_frame(frame, exact),
        "ours, --fast": lambda frame: convert_frame(frame, fast),
    }
    report("pairs resized", methods, [[frame] for frame in frames], rounds, 1)
    whole: dict[str, Callable[[list[SourceFrame]], object]] = {
        "Pillow, PNG": lambda frames: [with_pillow_to_png(frame) for frame in frames],
        "ours": lambda frames: whole_shard(frames, folder, fast=False),
        "ours, --fast": lambda frames: whole_shard(frames, folder, fast=True),
    }
    report("pairs made into shards", whole, [[frames]], rounds, len(frames))
    for name, settings in (("ours", exact), ("ours, --fast", fast)):
        differences = [difference(frame, settings) for frame in frames]
        largest = max(int(d.max()) for d in differences)
        mean = statistics.mean(float(d.mean()) for d in differences)
        print(f"  {name}: {largest} grey levels from Pillow's RGB at most, {mean:.4f} on average")


def difference(frame: SourceFrame, settings: PreparationSettings) -> np.ndarray:
    rgb = convert_frame(frame, settings).rgb
    assert rgb
    ours, theirs = (np.frombuffer(x, np.uint8).astype(int) for x in (rgb, with_pillow(frame)[0]))
    return np.abs(ours.reshape(3, -1) - theirs.reshape(-1, 3).T)


def reading(frames: list[SourceFrame], folder: Path, rounds: int) -> None:
    """An epoch in random order and batches of 16, as uint8 tensors, channels first.

    JPEGs are decoded for each batch, as other projects' loaders do: full-size files, or files that
    were resized before. Shards are loaded once, and frames are read by index.
    """
    rows = frames * max(1, ROWS // len(frames))
    task = ShardTask("pairs", "train", 0, rows, {})
    settings = PreparationSettings(size=SIZE)
    shard = make_shard(task, folder=folder, source=folder, settings=settings).shard
    resized: list[tuple[bytes, bytes]] = []
    for frame in frames:
        files: list[bytes] = []
        for pixels, mode in zip(with_pillow(frame), ("RGB", "L"), strict=True):
            file = io.BytesIO()
            Image.frombytes(mode, (SIZE, SIZE), pixels).save(file, "JPEG", quality=95)
            files.append(file.getvalue())
        resized.append((files[0], files[1]))

    def load() -> tuple[Frames, Frames]:
        path = folder / shard.path
        table = pq.read_table(path, columns=["rgb", "thermal"], memory_map=True)
        return frames_of([table], "rgb", SIZE), frames_of([table], "thermal", SIZE)

    def order(count: int) -> list[list[int]]:
        shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
        return [shuffled[start : start + BATCH] for start in range(0, count, BATCH)]

    def from_full_size(batches: list[list[int]]) -> None:
        for batch in batches:
            images = [with_pillow(rows[index]) for index in batch]
            for kind, channels in ((0, 3), (1, 1)):
                shape = (SIZE, SIZE, channels)
                torch.stack([_planes(np.frombuffer(i[kind], np.uint8), shape) for i in images])

    def from_resized(batches: list[list[int]]) -> None:
        for batch in batches:
            for kind, channels in ((0, 3), (1, 1)):
                files = [Image.open(io.BytesIO(resized[n % len(resized)][kind])) for n in batch]
                shape = (SIZE, SIZE, channels)
                torch.stack([_planes(np.asarray(file), shape) for file in files])

    loaded = load()

    def from_shard(batches: list[list[int]]) -> None:
        for batch in batches:
            for kind in loaded:
                kind.raw(batch)

    def from_file(batches: list[list[int]]) -> None:
        for kind in load():
            for batch in batches:
                kind.raw(batch)

    methods: dict[str, Callable[[list[list[int]]], None]] = {
        "JPEG, resized": from_resized,
        "loaded shard": from_shard,
        "shard, loading": from_file,
    }
    report("pairs read", methods, [[order(len(rows))]], 2 * rounds, len(rows))
    methods = {"JPEG, full size": from_full_size, "loaded shard": from_shard}
    report("pairs read", methods, [[order(len(frames))]], rounds, len(frames))


def _planes(pixels: np.ndarray, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.from_numpy(pixels.reshape(shape).transpose(2, 0, 1).copy())


def report(
    title: str,
    methods: dict[str, Callable[..., object]],
    items: list[list],
    rounds: int,
    count: int,
) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for method in methods.values():
        method(*items[0])
    for _ in range(rounds):
        for item in items:
            for name, method in methods.items():
                started = time.process_time()
                method(*item)
                seconds[name].append(time.process_time() - started)
    print(title)
    first = next(iter(methods))
    for name in methods:
        ratios = [a / b for a, b in zip(seconds[first], seconds[name], strict=True) if b > 0]
        low, middle, high = np.quantile(ratios, (0.1, 0.5, 0.9))
        per_second = count / statistics.median(seconds[name])
        print(
            f"  {name:16} {per_second:9.1f} / CPU second   {middle:6.2f} ({low:.2f} to {high:.2f})"
        )


if __name__ == "__main__":
    main()
