"""How recordings lie on disk, and which frames belong together: docs/layouts.md shows each tree."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts import (
    flir_aligned,
    flir_v1,
    flir_v2,
    folder_pairs,
    kaist,
    side_by_side,
)
from thermal_search.preparation.layouts.folder_pairs import Tree
from thermal_search.preparation.layouts.frame import Frame, Pairing, Recordings
from thermal_search.preparation.layouts.source import Source

__all__ = ["LAYOUTS", "Frame", "Layout", "Pairing", "Recordings", "read_layout"]


@dataclass(frozen=True)
class Layout:
    """One way in which recordings lie on disk."""

    looks: str
    """What to look for, in a few words."""

    find: Callable[[Path], Any]
    """What `read` needs to know of a folder with this layout; None for any other folder."""

    read: Callable[[Source, Any], list[Frame]]


def _tree(looks: str, *trees: Tree) -> Layout:
    return Layout(
        looks,
        find=lambda root: next((tree for tree in trees if tree.is_in(root)), None),
        read=lambda source, tree: tree.read(source),
    )


def _form(looks: str, form: flir_v1.Form) -> Layout:
    return Layout(looks, form.find, form.read)


LAYOUTS: Mapping[str, Layout] = {
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
        "the same with thermal left (never recognized by itself)",
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
        folder_pairs.own_tree,
        lambda source, tree: tree.read(source),
    ),
}
"""In the order in which they are looked for: the more particular first."""


def read_layout(
    source: Path, layout: str = "auto", *, official_only: bool = False
) -> tuple[str, Recordings]:
    """The frames of a recording and its layout's name, recognized by its folders if `auto`.

    With `official_only` no pair is recovered.
    """
    if not source.is_dir():
        raise DatasetError(f"{source} must be a folder with a recording, but is not a folder.")
    if layout == "auto":
        recognized = [name for name, known in LAYOUTS.items() if known.find(source) is not None]
        if not recognized:
            looks = "; ".join(f"{name}: {known.looks}" for name, known in LAYOUTS.items())
            raise DatasetError(
                f"{source} has no layout we know. Looked for {looks}. Give the folder that holds "
                "these, or rename yours to rgb/ and thermal/."
            )
        layout = recognized[0]
    known = LAYOUTS[layout]
    place = known.find(source)
    if place is None:
        raise DatasetError(
            f"{source} must hold {known.looks} to be {layout}, but does not: leave --layout out to "
            "have it recognized."
        )
    reader = Source(source, official_only)
    reader.found.frames = known.read(reader, place)
    if not any(frame.kind == "pairs" for frame in reader.found.frames):
        told = "".join(f" ({reason}: {file})" for file, reason in reader.found.left_out[:1])
        raise DatasetError(f"{source}: not one RGB image has a thermal partner{told}.")
    return layout, reader.found
