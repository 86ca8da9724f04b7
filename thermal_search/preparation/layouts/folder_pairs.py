"""Two folders with files of equal names: published datasets of this form, and your own.

A `Tree` names the folders. The pairs of a published dataset are its authors' (official); any other
two files of equal names are assumed to be a pair.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.contents import Pairing, SourceFrame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.source import Source

FOLDER_PAIRS = [
    ("visible", "infrared"),
    ("visible", "thermal"),
    ("visible", "lwir"),
    ("rgb", "thermal"),
    ("rgb", "infrared"),
    ("rgb", "ir"),
    ("vis", "ir"),
    ("vi", "ir"),
]
SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Tree:
    """RGB and thermal folders, by the authors' split."""

    folders: Mapping[Split | None, tuple[str, str]]
    pairing: Pairing = "official"
    recording: Callable[[str], str] | None = None
    """The recording of a file's stem, if names contain it."""

    same_size: bool = True

    def is_in(self, root: Path) -> bool:
        return all(
            (root / rgb).is_dir() and (root / ir).is_dir() for rgb, ir in self.folders.values()
        )

    def read(self, source: Source) -> list[SourceFrame]:
        frames: list[SourceFrame] = []
        for split, (rgb, thermal) in self.folders.items():
            frames += pair_by_stem(
                source,
                source.by_stem(source.root / rgb),
                source.by_stem(source.root / thermal),
                pairing=self.pairing,
                split=split,
                same_size=self.same_size,
                recording=self.recording,
            )
        return frames


# LLVIP: 26 locations, the first two digits of a name (Jia et al., 2021).
LLVIP = Tree(
    {
        "train": ("visible/train", "infrared/train"),
        "test": ("visible/test", "infrared/test"),
    },
    recording=lambda stem: f"place-{stem[:2]}",
)
# M3FD (Liu et al., CVPR 2022).
M3FD = Tree({None: ("Vis", "Ir")})
# MSRS (Tang et al., 2022).
MSRS = Tree({"train": ("train/vi", "train/ir"), "test": ("test/vi", "test/ir")})
# RoadScene (Xu et al., AAAI 2020), with its two resolutions of RGB.
ROADSCENE = [
    Tree({None: ("crop_HR_visible", "cropinfrared")}, same_size=False),
    Tree({None: ("crop_LR_visible", "cropinfrared")}),
]


def own_tree(root: Path) -> Tree | None:
    """Your own two folders: side by side, in folders of splits, or with such folders inside."""
    top = _folders(root)
    if pair := _pair(top):
        splits = [_splits(root / name) for name in pair]
        if splits[0] and splits[0].keys() == splits[1].keys():
            rgb, thermal = pair
            return Tree(
                {
                    split: (f"{rgb}/{splits[0][split]}", f"{thermal}/{splits[1][split]}")
                    for split in splits[0]
                },
                pairing="assumed",
            )
        return Tree({None: pair}, pairing="assumed")
    folders: dict[Split | None, tuple[str, str]] = {}
    for split, name in _splits(root).items():
        if pair := _pair(_folders(root / name)):
            folders[split] = (f"{name}/{pair[0]}", f"{name}/{pair[1]}")
    return Tree(folders, pairing="assumed") if folders else None


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def _splits(root: Path) -> dict[Split, str]:
    return {SPLITS[name.lower()]: name for name in _folders(root) if name.lower() in SPLITS}


def _pair(names: Sequence[str]) -> tuple[str, str] | None:
    by_lower = {name.lower(): name for name in names}
    for rgb, thermal in FOLDER_PAIRS:
        if rgb in by_lower and thermal in by_lower:
            return by_lower[rgb], by_lower[thermal]
    return None
