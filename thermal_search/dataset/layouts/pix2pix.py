"""The two layouts of pix2pix and CycleGAN.

Side by side: {train,val,test}/1.jpg, RGB and thermal in one picture twice as wide (Isola et al.,
2017). Unpaired: trainA, trainB and testA, testB, A being RGB (Zhu et al., 2017); there pictures of
equal names in valA and valB, or else in testA and testB, are taken for pairs, to judge on.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from thermal_search.dataset.layouts.files import PICTURES, Source
from thermal_search.dataset.layouts.frame import Frame
from thermal_search.dataset.layouts.stems import drives, pair_by_stem
from thermal_search.dataset.manifest import Split
from thermal_search.errors import DatasetError

PARTS: Mapping[str, Split] = {"train": "train", "val": "val", "test": "test"}


def find_side_by_side(root: Path) -> Path | None:
    """AB pictures lie directly in train/, which has no folders in it, as other trees have."""
    for place in (root, root / "AB"):
        train = place / "train"
        if train.is_dir():
            inside = list(train.iterdir())
            pictures = any(path.suffix.lower() in PICTURES for path in inside)
            if pictures and not any(path.is_dir() for path in inside):
                return place
    return None


def read_side_by_side(
    source: Source, place: Path, rgb_side: Literal["left", "right"] = "left"
) -> list[Frame]:
    frames: list[Frame] = []
    for name, split in PARTS.items():
        pictures = source.by_stem(place / name)
        recording = drives(pictures)
        frames += [
            Frame(path, path, f"{split}/{recording[stem]}", stem, split=split, rgb_side=rgb_side)
            for stem, path in sorted(pictures.items())
        ]
    return frames


def find_unpaired(root: Path) -> Path | None:
    return root if (root / "trainA").is_dir() and (root / "trainB").is_dir() else None


def read_unpaired(source: Source, place: Path) -> list[Frame]:
    frames: list[Frame] = []
    for kind, folder in (("rgb", "trainA"), ("thermal", "trainB")):
        pictures = source.by_stem(place / folder)
        recording = drives(pictures)
        frames += [
            Frame(
                path if kind == "rgb" else None,
                path if kind == "thermal" else None,
                f"{folder}/{recording[stem]}",
                stem,
                split="train",
            )
            for stem, path in sorted(pictures.items())
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
            f"{place} must have pairs to judge generators on: pictures of equal names in testA and "
            "testB (or valA and valB), but there are none. Put some there."
        )
    return frames + judged
