"""Time and memory of process.py on generated recordings of many frames.

    python benchmarks/preparation.py [--frames 10000] [--size 64] [--layouts flir-v2 ...]
    python benchmarks/preparation.py --camera --size 256 --frames 1000 --layouts flir-v2 \\
        --flags --workers 2

Frames are small JPEGs in each layout's own folders, so that everything but the decoding of large
images is measured (benchmarks/process.py measures that). With --camera they have FLIR's sizes, to
measure the gain of more worker processes. Memory is the sum over all processes of the run, with
shared pages counted once, sampled every tenth of a second.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

PROCESS = Path(__file__).parents[1] / "process.py"
FRAMES_PER_RECORDING = 250
SCENES = 16
SMALL, RGB, THERMAL = (180, 160), (1800, 1600), (640, 512)
"""Widths and heights in pixels: of the small images, and of FLIR's cameras."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--layouts", nargs="+", choices=list(TREES), default=list(TREES))
    parser.add_argument("--camera", action="store_true", help="images of FLIR's sizes")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for process.py")
    args = parser.parse_args()
    print("| Layout | Pairs | Seconds | Peak memory | Pairs written | Unusable |")
    print("|---|---|---|---|---|---|")
    for layout in args.layouts:
        with tempfile.TemporaryDirectory() as folder:
            root, output = Path(folder) / "raw", Path(folder) / "data"
            images = Images(Path(folder) / "images", camera=args.camera)
            TREES[layout](root, args.frames, images)
            flags = ["--size", str(args.size), "--max-unusable", "0.5", *args.flags]
            seconds, peak = measured([sys.executable, str(PROCESS), str(root), str(output), *flags])
            manifest = json.loads((output / "manifest.json").read_text())
            rows = sum(shard["rows"] for shard in manifest["shards"] if shard["kind"] == "pairs")
            unusable = len(manifest["unusable_files"])
            results = f"{seconds:.1f} | {peak / 2**20:.0f} MiB | {rows} | {unusable}"
            print(f"| {manifest['layout']} | {args.frames} | {results} |", flush=True)


def measured(command: list[str]) -> tuple[float, int]:
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"process.py ended with {process.returncode}")
    return time.monotonic() - started, peak


def memory(pid: int) -> int:
    """Bytes of a process and its descendants, shared pages divided among them (PSS)."""
    total, remaining = 0, [pid]
    while remaining:
        current = remaining.pop()
        try:
            for line in Path(f"/proc/{current}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
            for task in Path(f"/proc/{current}/task").iterdir():
                remaining += map(int, (task / "children").read_text().split())
        except OSError:
            continue  # it has just ended
    return total


class Images:
    """A few different scenes, thermal the negative of RGB, to be copied to any number of files."""

    def __init__(self, folder: Path, *, camera: bool) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        for number in range(SCENES):
            coarse = np.random.default_rng(number).integers(0, 256, (12, 14, 3), np.uint8)
            scene = Image.fromarray(coarse).resize(
                RGB if camera else SMALL, Image.Resampling.BICUBIC
            )
            scene.save(folder / f"rgb{number}.jpg", quality=92)
            thermal = ImageOps.invert(scene.convert("L")).resize(THERMAL if camera else SMALL)
            thermal.save(folder / f"thermal{number}.jpg", quality=92)

    def put(self, kind: str, scene: int, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.folder / f"{kind}{scene % SCENES}.jpg", path)


def numbers(frames: int) -> list[int]:
    """File numbers of frames, with gaps between recordings."""
    return [n + 1000 * (n // FRAMES_PER_RECORDING) for n in range(frames)]


def folders(root: Path, frames: int, images: Images) -> None:
    for number in numbers(frames):
        images.put("rgb", number, root / "visible" / f"FLIR_{number:06}.jpg")
        images.put("thermal", number, root / "infrared" / f"FLIR_{number:06}.jpg")


def flir_v2(root: Path, frames: int, images: Images) -> None:
    names: dict[str, str] = {}
    for n in range(frames):
        video = n // FRAMES_PER_RECORDING
        rgb = f"video-rgb{video}-frame-{n:06}-a{n}.jpg"
        thermal = f"video-thermal{video}-frame-{n:06}-b{n}.jpg"
        images.put("rgb", n, root / "video_rgb_test" / "data" / rgb)
        images.put("thermal", n, root / "video_thermal_test" / "data" / thermal)
        names[rgb] = thermal
    (root / "rgb_to_thermal_vid_map.json").write_text(json.dumps(names))


def flir_v1(root: Path, frames: int, images: Images) -> None:
    _train_and_validation(root, frames, images, "Training", "Validation", "PreviewData")


def flir_v1_3(root: Path, frames: int, images: Images) -> None:
    _train_and_validation(root, frames, images, "train", "val", "thermal_8_bit")


def _train_and_validation(
    root: Path, frames: int, images: Images, train: str, validation: str, folder: str
) -> None:
    for index, number in enumerate(numbers(frames)):
        split = root / (validation if index % 8 == 0 else train)
        images.put("rgb", number, split / "RGB" / f"FLIR_{number:06}.jpg")
        images.put("thermal", number, split / folder / f"FLIR_{number:06}.jpeg")


def flir_aligned(root: Path, frames: int, images: Images) -> None:
    splits: dict[str, list[str]] = {"train": [], "validation": []}
    for index, number in enumerate(numbers(frames)):
        stem = f"FLIR_{number:06}"
        images.put("rgb", number, root / "JPEGImages" / f"{stem}_RGB.jpg")
        images.put("thermal", number, root / "JPEGImages" / f"{stem}_PreviewData.jpeg")
        splits["validation" if index % 5 == 0 else "train"].append(f"{stem}_PreviewData")
    for name, stems in splits.items():
        (root / f"align_{name}.txt").write_text("\n".join(stems) + "\n")


TREES = {
    "folders": folders,
    "flir-v2": flir_v2,
    "flir-v1": flir_v1,
    "flir-v1.3": flir_v1_3,
    "flir-aligned": flir_aligned,
}

if __name__ == "__main__":
    main()
