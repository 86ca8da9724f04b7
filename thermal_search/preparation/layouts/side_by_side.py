"""The two layouts of pix2pix and CycleGAN.

Side by side: {train,val,test}/1.jpg, RGB and thermal in one image twice as wide (Isola et al.,
2017). Unpaired: trainA, trainB and testA, testB, A being RGB (Zhu et al., 2017); there images of
equal names in valA and valB, or else in testA and testB, are taken for pairs, to judge on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from thermal_search.data.manifest import Split
from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.layouts.pairing import drives, pair_by_stem
from thermal_search.preparation.layouts.source import IMAGE_SUFFIXES, Source

PARTS: Mapping[str, Split] = {"train": "train", "val": "val", "test": "test"}


def find_side_by_side(root: Path) -> Path | None:
    """AB images lie directly in train/, which has no folders in it, as other trees have."""
    for place in (root, root / "AB"):
        train = place / "train"
        if train.is_dir():
            inside = list(train.iterdir())
            images = any(path.suffix.lower() in IMAGE_SUFFIXES for path in inside)
            if images and not any(path.is_dir() for path in inside):
                return place
    return None


def read_side_by_side(
    source: Source, place: Path, rgb_side: Literal["left", "right"] = "left"
) -> list[Frame]:
    frames: list[Frame] = []
    for name, split in PARTS.items():
        images = source.by_stem(place / name)
        recording = drives(images)
        frames += [
            Frame(path, path, f"{split}/{recording[stem]}", stem, split=split, rgb_side=rgb_side)
            for stem, path in sorted(images.items())
        ]
    return frames


def find_unpaired(root: Path) -> Path | None:
    return root if (root / "trainA").is_dir() and (root / "trainB").is_dir() else None


def read_unpaired(source: Source, place: Path) -> list[Frame]:
    frames: list[Frame] = []
    for kind, folder in (("rgb", "trainA"), ("thermal", "trainB")):
        images = source.by_stem(place / folder)
        recording = drives(images)
        frames += [
            Frame(
                path if kind == "rgb" else None,
                path if kind == "thermal" else None,
                f"{folder}/{recording[stem]}",
                stem,
                split="train",
            )
            for stem, path in sorted(images.items())
        ]
    judged: list[Frame] = []
    tested: Split = "test" if (place / "valA").is_dir() else "val"
    parts: dict[str, Split] = {"val": "val", "test": tested}
    for name, split in parts.items():
        judged += pair_by_stem(
            source,
            source.by_stem(place / f"{name}A"),
            source.by_stem(place / f"{name}B"),
            pairing="assumed",
            split=split,
        )
    if not judged:
        raise DatasetError(
            f"{place} must have pairs to judge generators on: images of equal names in testA and "
            "testB (or valA and valB), but there are none. Put some there."
        )
    return frames + judged
