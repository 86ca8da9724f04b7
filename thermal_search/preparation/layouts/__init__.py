"""The folder layouts of recordings, and which of their images are pairs: see docs/layouts.md."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts import (
    flir_aligned,
    flir_v1,
    flir_v2,
    folder_pairs,
    kaist,
    side_by_side,
)
from thermal_search.preparation.layouts.contents import SourceContents, SourceFrame
from thermal_search.preparation.layouts.folder_pairs import Tree
from thermal_search.preparation.layouts.source import Source
from thermal_search.preparation.settings import LayoutName

__all__ = ["LAYOUTS", "Layout", "read_layout"]


@dataclass(frozen=True)
class Layout:
    """One way in which a recording's files are arranged."""

    pattern: str
    """Its folders, in a few words."""

    find: Callable[[Path], Any]
    """The location that `read` takes, of a folder with this layout; None for any other folder."""

    read: Callable[[Source, Any], list[SourceFrame]]


def _tree(pattern: str, *trees: Tree) -> Layout:
    return Layout(
        pattern,
        find=lambda root: next((tree for tree in trees if tree.is_in(root)), None),
        read=lambda source, tree: tree.read(source),
    )


def _form(pattern: str, form: flir_v1.Form) -> Layout:
    return Layout(pattern, form.find, form.read)


LAYOUTS: Mapping[LayoutName, Layout] = {
    "flir-v2": Layout(
        f"video_rgb_test/ + video_thermal_test/ + {flir_v2.MAP}", flir_v2.find, flir_v2.read
    ),
    "flir-v1": _form("Training/RGB/ + Training/PreviewData/", flir_v1.V1),
    "flir-v1.3": _form("train/RGB/ + train/thermal_8_bit/", flir_v1.V1_3),
    "flir-europe": Layout(
        f"train/RGB/ + train/thermal_8_bit/ + train/{flir_v1.EUROPE_MAP}",
        flir_v1.EUROPE.find,
        flir_v1.read_europe,
    ),
    "flir-aligned": Layout("JPEGImages/ + align_train.txt", flir_aligned.find, flir_aligned.read),
    "kaist": Layout("set00/V000/visible/ + set00/V000/lwir/", kaist.find, kaist.read),
    "llvip": _tree("visible/{train,test}/ + infrared/{train,test}/", folder_pairs.LLVIP),
    "m3fd": _tree("Vis/ + Ir/", folder_pairs.M3FD),
    "msrs": _tree("train/{vi,ir}/ + test/{vi,ir}/", folder_pairs.MSRS),
    "roadscene": _tree("crop_HR_visible/ + cropinfrared/", *folder_pairs.ROADSCENE),
    "side-by-side": Layout(
        "train/ with RGB left and thermal right in one image",
        side_by_side.find_side_by_side,
        side_by_side.read_side_by_side,
    ),
    "side-by-side-ba": Layout(
        "the same with thermal left (only with --layout)",
        side_by_side.find_side_by_side,
        partial(side_by_side.read_side_by_side, rgb_side="right"),
    ),
    "unpaired": Layout(
        "trainA/ + trainB/ + testA/ + testB/",
        side_by_side.find_unpaired,
        side_by_side.read_unpaired,
    ),
    "folders": Layout(
        "rgb/ + thermal/, visible/ + infrared/ and the like, also in train/, val/, test/",
        folder_pairs.own_folders,
        lambda source, folders: folders.read(source),
    ),
}
"""In the order in which they are tried: the more specific first."""


def read_layout(
    source: Path,
    layout: Literal["auto", LayoutName] = "auto",
    *,
    official_only: bool = False,
    follow_links: bool = False,
) -> tuple[LayoutName, SourceContents]:
    """The name of a recording's layout, recognized by its folders if `auto`, and its frames.

    With `official_only` no pairs are recovered, with `follow_links` links may lead out of the
    source. Raises DatasetError.
    """
    if not source.is_dir():
        raise DatasetError(f"{source} must be a folder with a recording, but is not a folder.")
    name = _recognize(source) if layout == "auto" else layout
    entry = LAYOUTS[name]
    location = entry.find(source)
    if location is None:
        raise DatasetError(
            f"{source} must hold {entry.pattern} to be {name}, but does not: omit --layout to "
            "have it recognized."
        )
    reader = Source(source, official_only, follow_links)
    contents = reader.contents
    contents.frames = entry.read(reader, location)
    if not any(frame.kind == "pairs" for frame in contents.frames):
        first = "".join(f" ({reason}: {file})" for file, reason in contents.unusable_files[:1])
        raise DatasetError(
            f"{source} must hold pairs, but no RGB image has a thermal partner{first}."
        )
    reader.note_unread()
    if contents.recognized_by:
        contents.notes.append(
            f"Recordings were recognized by {'; by '.join(sorted(contents.recognized_by))}."
        )
    return name, contents


def _recognize(source: Path) -> LayoutName:
    for name, entry in LAYOUTS.items():
        if entry.find(source) is not None:
            return name
    patterns = "; ".join(f"{name}: {entry.pattern}" for name, entry in LAYOUTS.items())
    raise DatasetError(
        f"{source} must have a known layout, but has none of {patterns}: pass the folder that "
        "holds these, or rename yours to rgb/ and thermal/."
    )
