"""The two layouts of pix2pix and CycleGAN.

Side by side: {train,val,test}/1.jpg, RGB and thermal in one image of twice the width (Isola et al.,
2017). Unpaired: trainA, trainB and testA, testB, A being RGB (Zhu et al., 2017); there images of
equal names in valA and valB, or else in testA and testB, are assumed to be pairs, to evaluate on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from thermal_search.data.manifest import Split
from thermal_search.errors import DatasetError
from thermal_search.image_files import SUFFIXES as IMAGE_SUFFIXES
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.recordings import recognize
from thermal_search.preparation.layouts.source import Source

SPLITS: Sequence[Split] = ("train", "val", "test")


def find_side_by_side(root: Path) -> Path | None:
    """The folder whose train/ holds images but, unlike in other layouts, no folders."""
    for folder in (root, root / "AB"):
        train = folder / "train"
        if train.is_dir():
            entries = list(train.iterdir())
            images = any(path.suffix.lower() in IMAGE_SUFFIXES for path in entries)
            if images and not any(path.is_dir() for path in entries):
                return folder
    return None


def read_side_by_side(
    source: Source, root: Path, rgb_side: Literal["left", "right"] = "left"
) -> list[SourceFrame]:
    frames: list[SourceFrame] = []
    for split in SPLITS:
        images = source.by_stem(root / split)
        recordings = recognize(images)
        source.contents.recognized_by |= recordings.bases
        frames += [
            SourceFrame(
                path,
                path,
                f"{split}/{recordings.recording[stem]}",
                stem,
                split=split,
                rgb_side=rgb_side,
                position=recordings.position[stem],
            )
            for stem, path in sorted(images.items())
        ]
    return frames


def find_unpaired(root: Path) -> Path | None:
    return root if (root / "trainA").is_dir() and (root / "trainB").is_dir() else None


def read_unpaired(source: Source, root: Path) -> list[SourceFrame]:
    frames: list[SourceFrame] = []
    for kind, folder in (("rgb", "trainA"), ("thermal", "trainB")):
        images = source.by_stem(root / folder)
        recordings = recognize(images)
        source.contents.recognized_by |= recordings.bases
        frames += [
            SourceFrame(
                path if kind == "rgb" else None,
                path if kind == "thermal" else None,
                f"{folder}/{recordings.recording[stem]}",
                stem,
                split="train",
                position=recordings.position[stem],
            )
            for stem, path in sorted(images.items())
        ]
    pairs: list[SourceFrame] = []
    test_split: Split = "test" if (root / "valA").is_dir() else "val"
    splits: dict[str, Split] = {"val": "val", "test": test_split}
    for name, split in splits.items():
        pairs += pair_by_stem(
            source,
            source.by_stem(root / f"{name}A"),
            source.by_stem(root / f"{name}B"),
            pairing="assumed",
            split=split,
        )
    if not pairs:
        raise DatasetError(
            f"{root} must have pairs to evaluate generators on, images of equal names in testA and "
            "testB (or valA and valB), but has none: add some."
        )
    return frames + pairs
