"""FLIR-aligned (Zhang et al., ICIP 2020): 5,142 pairs of FLIR v1, aligned by hand, 640 x 512.

    JPEGImages/FLIR_00002_RGB.jpg   JPEGImages/FLIR_00002_PreviewData.jpeg
    align_train.txt, align_validation.txt     one FLIR_00002_PreviewData a line

also with AnnotatedImages/ or under align/; the lists also in ImageSets/Main/.
"""

from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.source import Source, plain_name

IMAGE_SUFFIXES = ("JPEGImages", "AnnotatedImages")
RGB, THERMAL = "_RGB", "_PreviewData"
LISTS: dict[str, Split] = {"align_train.txt": "train", "align_validation.txt": "val"}


def find(root: Path) -> Path | None:
    for place in (root, root / "align"):
        images = any((place / name).is_dir() for name in IMAGE_SUFFIXES)
        if images and any(_list(place, name) for name in LISTS):
            return place
    return None


def read(source: Source, place: Path) -> list[Frame]:
    folder = next(place / name for name in IMAGE_SUFFIXES if (place / name).is_dir())
    rgb: dict[str, Path] = {}
    thermal: dict[str, Path] = {}
    for stem, path in source.by_stem(folder).items():
        if stem.endswith(RGB):
            rgb[stem.removesuffix(RGB)] = path
        elif stem.endswith(THERMAL):
            thermal[stem.removesuffix(THERMAL)] = path
        else:
            source.leave_out(path, f"neither ...{RGB} nor ...{THERMAL}")
    frames: list[Frame] = []
    listed: set[str] = set()
    for name, split in LISTS.items():
        path = _list(place, name)
        stems: set[str] = set()
        for line in source.read_lines(path) if path else []:
            stem = (plain_name(line) or "").removesuffix(".jpeg").removesuffix(THERMAL)
            if stem in listed:
                source.leave_out(f"{name}: {line}", "listed twice")
            elif stem in rgb and stem in thermal:
                listed.add(stem)
                stems.add(stem)
            else:
                source.leave_out(f"{name}: {line[:100]}", "listed, but an image is missing")
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
        source.found.notes.append(f"{unlisted} pairs are in none of the lists and were not taken.")
    return frames


def _list(place: Path, name: str) -> Path | None:
    for path in (place / name, place / "ImageSets" / "Main" / name):
        if path.is_file():
            return path
    return None
