"""How recordings lie on disk, and which frames belong together.

`folders`   two folders of equal stems: visible + infrared (RoadScene), rgb + thermal, vis + ir
`flir-v2`   FLIR ADAS v2: six folders and rgb_to_thermal_vid_map.json for the video pairs; the
            stills in images_*_{train,val} have no partners
"""

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from thermal_search.dataset.layouts.frame import Frame, Pairing, Recordings
from thermal_search.dataset.manifest import Split
from thermal_search.errors import DatasetError

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
FOLDER_PAIRS = [("visible", "infrared"), ("rgb", "thermal"), ("vis", "ir")]
__all__ = ["LAYOUTS", "Frame", "Pairing", "Recordings", "read_layout"]

FLIR_MAP = "rgb_to_thermal_vid_map.json"
FLIR_NAME = re.compile(r"video-([A-Za-z0-9]+)-frame-(\d+)-[A-Za-z0-9]+\.jpe?g")

GAP_BETWEEN_RECORDINGS = 50
"""Numbers missing between two files of a folder that make them different recordings."""


def read_layout(source: Path, layout: str = "auto") -> tuple[str, Recordings]:
    """The frames of a recording and its layout's name, recognised by its folders if `auto`."""
    if not source.is_dir():
        raise DatasetError(f"{source} must be a folder with a recording, but is not a folder.")
    if layout == "auto":
        recognised = [name for name, (is_there, _) in LAYOUTS.items() if is_there(source)]
        if not recognised:
            pairs = ", ".join(f"{rgb}/ + {thermal}/" for rgb, thermal in FOLDER_PAIRS)
            raise DatasetError(
                f"{source} has no layout we know: looked for two folders of equal stems ({pairs}) "
                f"and for FLIR ADAS v2 (video_rgb_test/, video_thermal_test/ and {FLIR_MAP})."
            )
        layout = recognised[0]
    is_there, read = LAYOUTS[layout]
    if not is_there(source):
        raise DatasetError(f"{source} does not have the layout {layout}: see --layout auto.")
    found = read(source)
    if not any(frame.kind == "pairs" for frame in found.frames):
        raise DatasetError(f"{source}: not one RGB picture has a thermal partner.")
    return layout, found


# Two folders.


def _folder_pair(source: Path) -> tuple[Path, Path] | None:
    folders = {path.name.lower(): path for path in source.iterdir() if path.is_dir()}
    for rgb, thermal in FOLDER_PAIRS:
        if rgb in folders and thermal in folders:
            return folders[rgb], folders[thermal]
    return None


def _read_folders(source: Path) -> Recordings:
    folders = _folder_pair(source)
    assert folders
    found = Recordings()
    rgb, thermal = (_by_stem(folder, source, found) for folder in folders)
    for stem in sorted(rgb.keys() ^ thermal.keys()):
        alone = rgb.get(stem) or thermal[stem]
        kind = "thermal" if stem in rgb else "RGB"
        found.left_out.append((_shown(alone, source), f"no {kind} partner"))
    stems = sorted(rgb.keys() & thermal.keys())
    recording = _recordings_by_number(stems)
    found.frames = [
        Frame(rgb[stem], thermal[stem], recording[stem], stem, same_size=True, pairing="assumed")
        for stem in stems
    ]
    return found


def _recordings_by_number(stems: Iterable[str]) -> dict[str, str]:
    """Frames close in number come from one drive; a gap in the numbers begins another."""
    numbered: dict[str, list[tuple[int, str]]] = {}
    for stem in stems:
        match = re.fullmatch(r"(.*?)(\d+)\D*", stem)
        prefix, number = (match[1], int(match[2])) if match else (stem, 0)
        numbered.setdefault(prefix, []).append((number, stem))
    recording: dict[str, str] = {}
    for members in numbered.values():
        members.sort()
        current = members[0][1]
        recording[current] = current
        for (before, _), (number, stem) in pairwise(members):
            if number - before > GAP_BETWEEN_RECORDINGS:
                current = stem
            recording[stem] = current
    return recording


# FLIR ADAS v2.


def _flir_root(source: Path) -> Path | None:
    for root in (source, source / "FLIR_ADAS_v2"):
        if (root / "video_rgb_test").is_dir() and (root / "video_thermal_test").is_dir():
            return root
    return None


def _read_flir(source: Path) -> Recordings:
    root = _flir_root(source)
    assert root
    found = Recordings()
    rgb = _by_name(root / "video_rgb_test", source, found)
    thermal = _by_name(root / "video_thermal_test", source, found)
    for rgb_name, thermal_name in sorted(_read_flir_map(root).items()):
        shown = f"video_rgb_test/data/{rgb_name}"
        match = FLIR_NAME.fullmatch(rgb_name)
        if not match:
            found.left_out.append((shown, "no video and frame number in its name"))
        elif rgb_name not in rgb:
            found.left_out.append((shown, "named by the map, but missing"))
        elif thermal_name not in thermal:
            found.left_out.append(
                (f"video_thermal_test/data/{thermal_name}", "named by the map, but missing")
            )
        else:
            name = f"{match[1]}-{int(match[2]):06d}"
            found.frames.append(Frame(rgb[rgb_name], thermal[thermal_name], match[1], name))
    splits: list[Split] = ["train", "val"]
    for split in splits:
        for kind in ("rgb", "thermal"):
            _read_flir_stills(root, kind, split, source, found)
    return found


def _read_flir_stills(root: Path, kind: str, split: Split, source: Path, found: Recordings) -> None:
    folder = root / f"images_{kind}_{split}"
    for name, path in sorted(_by_name(folder, source, found).items()):
        match = FLIR_NAME.fullmatch(name)
        if not match:
            reason = "no video and frame number in its name"
            found.left_out.append((_shown(path, source), reason))
            continue
        rgb, thermal = (path, None) if kind == "rgb" else (None, path)
        name = f"{match[1]}-{int(match[2]):06d}"
        found.frames.append(Frame(rgb, thermal, match[1], name, split))


def _read_flir_map(root: Path) -> dict[str, str]:
    # The archive has it beside the folder of folders, some copies in it.
    path = next((p for p in (root / FLIR_MAP, root.parent / FLIR_MAP) if p.is_file()), None)
    if path is None:
        raise DatasetError(
            f"{root} lacks {FLIR_MAP}, which says which RGB and thermal frames are pairs: it "
            "comes with the archive; put it in this folder."
        )
    try:
        mapping = json.loads(path.read_text())
    except ValueError as error:
        raise DatasetError(f"{path} is no JSON ({error}): unpack the archive again.") from None
    if not isinstance(mapping, dict):
        raise DatasetError(f"{path} must map RGB file names to thermal ones, but is no object.")
    for name in [*mapping.keys(), *mapping.values()]:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise DatasetError(f"{path} must hold plain file names, but holds {name!r}.")
    return mapping  # pyright: ignore[reportUnknownVariableType] - checked above


# Files.


def _by_stem(folder: Path, source: Path, found: Recordings) -> dict[str, Path]:
    pictures: dict[str, Path] = {}
    for path in _pictures(folder, source, found):
        if path.stem in pictures:
            found.left_out.append((_shown(path, source), "a second file of this stem"))
        else:
            pictures[path.stem] = path
    return pictures


def _by_name(folder: Path, source: Path, found: Recordings) -> dict[str, Path]:
    data = folder / "data"
    return {path.name: path for path in _pictures(data, source, found)} if data.is_dir() else {}


def _pictures(folder: Path, source: Path, found: Recordings) -> list[Path]:
    root = source.resolve()
    pictures: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in PICTURES:
            continue
        if path.resolve().is_relative_to(root):
            pictures.append(path)
        else:
            found.left_out.append((_shown(path, source), "a link that leads out of the recording"))
    return pictures


def _shown(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()


LAYOUTS: dict[str, tuple[Callable[[Path], object], Callable[[Path], Recordings]]] = {
    "folders": (_folder_pair, _read_folders),
    "flir-v2": (_flir_root, _read_flir),
}
