"""FLIR-aligned (Zhang et al., ICIP 2020): 5,142 pairs of FLIR v1, aligned by hand, 640 x 512.

    JPEGImages/FLIR_00002_RGB.jpg   JPEGImages/FLIR_00002_PreviewData.jpeg
    align_train.txt, align_validation.txt     one FLIR_00002_PreviewData per line

also with AnnotatedImages/ or under align/; the lists also in ImageSets/Main/.
"""

from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.source import Source, plain_name

IMAGE_FOLDERS = ("JPEGImages", "AnnotatedImages")
RGB, THERMAL = "_RGB", "_PreviewData"
LISTS: dict[str, Split] = {"align_train.txt": "train", "align_validation.txt": "val"}


def find(root: Path) -> Path | None:
    for folder in (root, root / "align"):
        images = any((folder / name).is_dir() for name in IMAGE_FOLDERS)
        if images and any(_list(folder, name) for name in LISTS):
            return folder
    return None


def read(source: Source, root: Path) -> list[SourceFrame]:
    folder = next(root / name for name in IMAGE_FOLDERS if (root / name).is_dir())
    rgb: dict[str, Path] = {}
    thermal: dict[str, Path] = {}
    for stem, path in source.by_stem(folder).items():
        if stem.endswith(RGB):
            rgb[stem.removesuffix(RGB)] = path
        elif stem.endswith(THERMAL):
            thermal[stem.removesuffix(THERMAL)] = path
        else:
            source.mark_unusable(path, f"neither ...{RGB} nor ...{THERMAL}")
    frames: list[SourceFrame] = []
    listed: set[str] = set()
    for name, split in LISTS.items():
        path = _list(root, name)
        stems: set[str] = set()
        for line in source.read_lines(path) if path else []:
            stem = (plain_name(line) or "").removesuffix(".jpeg").removesuffix(THERMAL)
            if stem in listed:
                source.mark_unusable(f"{name}: {line}", "listed twice")
            elif stem in rgb and stem in thermal:
                listed.add(stem)
                stems.add(stem)
            else:
                source.mark_unusable(f"{name}: {line[:100]}", "listed, but an image is missing")
        frames += pair_by_stem(
            source,
            {stem: rgb[stem] for stem in stems},
            {stem: thermal[stem] for stem in stems},
            pairing="official",
            split=split,
            same_size=True,
        )
    unlisted = len((rgb.keys() & thermal.keys()) - listed)
    if unlisted:
        source.contents.notes.append(f"{unlisted} pairs are in none of the lists and were omitted.")
    return frames


def _list(root: Path, name: str) -> Path | None:
    for path in (root / name, root / "ImageSets" / "Main" / name):
        if path.is_file():
            return path
    return None
