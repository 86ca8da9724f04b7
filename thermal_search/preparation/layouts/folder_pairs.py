"""Two folders with files of equal names: published datasets of this form, and your own.

A `Tree` names the folders. The pairs of a published dataset are its authors' (official); any other
two files of equal names are assumed to be a pair.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from thermal_search.data.manifest import Split
from thermal_search.image_files import is_companion
from thermal_search.preparation.layouts.contents import Pairing, SourceFrame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.source import Source

RGB_FOLDERS = ("rgb", "visible", "vis", "vi", "color", "colour")
THERMAL_FOLDERS = ("thermal", "infrared", "ir", "lwir", "tir")
MAX_DEPTH = 3
"""Folders around rgb/ and thermal/, such as those of splits and drives."""

SPLITS: Mapping[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "tests": "test",
    "holdout": "test",
}
EVALUATION = ("eval", "evaluation")
"""Names of a split that is val if there is no other, else test."""


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


@dataclass(frozen=True)
class OwnFolders:
    """Your own folders, each an RGB and a thermal one, with or without folders around and in them.

    Images of equal paths below the two are pairs. A folder of a split's name is that split.
    """

    pairs: Sequence[tuple[str, str, str]]
    """The folder around both, relative to the root, and the names of the two."""

    def read(self, source: Source) -> list[SourceFrame]:
        images: list[tuple[str, Mapping[str, Path], Mapping[str, Path]]] = []
        for around, *names in self.pairs:
            base = source.root / around
            rgb, thermal = (source.by_stem(base / name, deep=True) for name in names)
            images.append((around, rgb, thermal))
        has_val = any(
            SPLITS.get(part.lower()) == "val"
            for around, *kinds in images
            for stem in (f"{around}/{path}" for kind in kinds for path in kind)
            for part in stem.split("/")[:-1]
        )
        named: Mapping[str, Split] = {
            **SPLITS,
            **dict.fromkeys(EVALUATION, "test" if has_val else "val"),
        }
        frames: list[SourceFrame] = []
        for around, *kinds in images:
            # One side may write `val`, the other `validation`.
            rgb, thermal = (
                {_with_split(stem, named): path for stem, path in kind.items()} for kind in kinds
            )
            _omit_lonely_folders(source, rgb, thermal)
            stems = rgb.keys() | thermal.keys()
            split_of = {stem: _split(f"{around}/{stem}", named) for stem in stems}
            splits: Sequence[Split | None] = (None, "train", "val", "test")
            for split in splits:
                chosen = {stem for stem in stems if split_of[stem] == split}
                frames += pair_by_stem(
                    source,
                    {stem: path for stem, path in rgb.items() if stem in chosen},
                    {stem: path for stem, path in thermal.items() if stem in chosen},
                    pairing="assumed",
                    split=split,
                    same_size=True,
                    folder=around,
                )
        return frames


def own_folders(root: Path) -> OwnFolders | None:
    """The RGB and thermal folders below a root; None if there are none."""
    pairs = list(_own_pairs(root, "", MAX_DEPTH))
    return OwnFolders(pairs) if pairs else None


def _own_pairs(root: Path, around: str, depth: int) -> Iterator[tuple[str, str, str]]:
    names = {name.lower(): name for name in _folders(root / around)}
    rgb = next((names[name] for name in RGB_FOLDERS if name in names), None)
    thermal = next((names[name] for name in THERMAL_FOLDERS if name in names), None)
    if rgb and thermal:
        yield around, rgb, thermal
    elif depth:
        for name in names.values():
            yield from _own_pairs(root, f"{around}/{name}".lstrip("/"), depth - 1)


def _folders(root: Path) -> list[str]:
    return sorted(
        path.name for path in root.iterdir() if path.is_dir() and not is_companion(path.name)
    )


def _with_split(stem: str, named: Mapping[str, Split]) -> str:
    """A path whose folders of splits have the splits' own names."""
    *folders, name = stem.split("/")
    return "/".join([*(named.get(folder.lower(), folder) for folder in folders), name])


def _split(stem: str, named: Mapping[str, Split]) -> Split | None:
    folders = stem.split("/")[:-1]
    return next((named[part.lower()] for part in folders if part.lower() in named), None)


def _omit_lonely_folders(source: Source, rgb: dict[str, Path], thermal: dict[str, Path]) -> None:
    """Takes out, with a note, the images of a folder that only one side has."""
    for kind, images, others in (("RGB", rgb, thermal), ("thermal", thermal, rgb)):
        other_folders = {PurePosixPath(stem).parent for stem in others}
        lonely = [stem for stem in images if PurePosixPath(stem).parent not in other_folders]
        # If nothing fits, each image is listed as one without a partner.
        if not other_folders or len(lonely) == len(images):
            continue
        counts = Counter(source.shown(images.pop(stem).parent) for stem in lonely)
        for folder, count in counts.items():
            source.contents.notes.append(
                f"{count} {kind} images in {folder} were omitted, because the other side has no "
                "such folder."
            )
