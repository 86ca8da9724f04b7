"""FLIR ADAS v2 (2022).

    images_{rgb,thermal}_{train,val}/   video_{rgb,thermal}_test/   rgb_to_thermal_vid_map.json
    each with data/ and index.json, thermal ones also with analyticsData/ (16-bit twins)

The map, in the folder of these six or beside it, pairs the video frames: official. The stills have
no map; `flir_v2_stills` recovers what it can. A file is video-VIDEO-frame-INDEX-FRAME.jpg.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts.flir_v2_stills import Shot, pair_stills
from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.layouts.source import Source, plain_name

MAP = "rgb_to_thermal_vid_map.json"
NAME = re.compile(r"video-([A-Za-z0-9]+)-frame-([0-9]{1,9})-[A-Za-z0-9]+\.(?:jpe?g|png)", re.I)
NO_NUMBER = "no video and frame number in its name"
MISSING = "named by the map, but missing"


@dataclass(frozen=True)
class _Folder:
    shots: Mapping[str, Shot]
    """By file name."""

    twins: Mapping[str, Path]
    """16-bit images by stem."""

    def twin(self, shot: Shot | None) -> Path | None:
        return self.twins.get(shot.path.stem) if shot else None

    def get(self, name: str) -> Shot | None:
        """By the name in the map, which may have another extension than the file."""
        if name in self.shots:
            return self.shots[name]
        stem = Path(name).stem
        return next((s for e in (".jpg", ".jpeg", ".png") if (s := self.shots.get(stem + e))), None)


def find(root: Path) -> Path | None:
    for place in (root, root / "FLIR_ADAS_v2"):
        if (place / "video_rgb_test").is_dir() and (place / "video_thermal_test").is_dir():
            return place
    return None


def read(source: Source, place: Path) -> list[Frame]:
    stills = [frame for split in ("train", "val") for frame in _read_stills(source, place, split)]
    paired = {frame.split for frame in stills if frame.kind == "pairs"}
    # The authors' split makes the videos the test; without pairs among the stills to train and
    # to validate on, the videos are all there is, and are dealt out.
    video_split: Split | None = "test" if paired == {"train", "val"} else None
    return _read_videos(source, place, video_split) + stills


def _read_videos(source: Source, place: Path, split: Split | None) -> list[Frame]:
    rgb = _read_folder(source, place / "video_rgb_test")
    thermal = _read_folder(source, place / "video_thermal_test")
    frames: list[Frame] = []
    used: set[Path] = set()
    for rgb_name, thermal_name in _read_map(source, place):
        color, heat = rgb.get(rgb_name), thermal.get(thermal_name)
        if not color or not heat:
            folder, name = ("rgb", rgb_name) if not color else ("thermal", thermal_name)
            source.leave_out(f"video_{folder}_test/data/{name}", MISSING)
        elif heat.path in used:
            source.leave_out(f"{MAP}: {thermal_name}", "named by the map twice")
        else:
            used |= {color.path, heat.path}
            frames.append(
                Frame(
                    color.path,
                    heat.path,
                    color.video,
                    color.name,
                    split=split,
                    radiometric=thermal.twin(heat),
                )
            )
    unnamed = sum(s.path not in used for f in (rgb, thermal) for s in f.shots.values())
    if unnamed:
        source.found.notes.append(f"{unnamed} video frames are not in the map and were not taken.")
    return frames


def _read_map(source: Source, place: Path) -> list[tuple[str, str]]:
    """(RGB name, thermal name), every one a plain file name; others are left out."""
    # The archive has it beside the folder of folders, some copies in it.
    path = next((p for p in (place / MAP, place.parent / MAP) if p.is_file()), None)
    if path is None:
        raise DatasetError(
            f"{place} lacks {MAP}, which says which RGB and thermal frames are pairs: it comes "
            "with the archive; put it in this folder."
        )
    content = source.read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must map RGB file names to thermal ones, but is no object.")
    pairs: list[tuple[str, str]] = []
    for entry in sorted(content.items()):  # pyright: ignore[reportUnknownVariableType]
        names = [plain_name(n.removeprefix("data/")) if isinstance(n, str) else None for n in entry]
        if names[0] and names[1]:
            pairs.append((names[0], names[1]))
        else:
            source.leave_out(f"{MAP}: {str(entry)[:100]}", "must be two plain file names")
    return pairs


def _read_stills(source: Source, place: Path, split: Split) -> list[Frame]:
    rgb_folder, thermal_folder = (place / f"images_{kind}_{split}" for kind in ("rgb", "thermal"))
    rgb = _read_folder(source, rgb_folder)
    thermal = _read_folder(source, thermal_folder)
    pairs = pair_stills(
        source,
        (rgb_folder / "index.json", thermal_folder / "index.json"),
        (list(rgb.shots.values()), list(thermal.shots.values())),
    )
    return [
        Frame(
            still.rgb.path if still.rgb else None,
            still.thermal.path if still.thermal else None,
            still.recording,
            still.name,
            split=split,
            pairing="recovered",
            radiometric=thermal.twin(still.thermal),
        )
        for still in pairs
    ]


def _read_folder(source: Source, folder: Path) -> _Folder:
    shots: dict[str, Shot] = {}
    for name, path in source.by_name(folder / "data").items():
        if match := NAME.fullmatch(name):
            shots[name] = Shot(match[1], int(match[2]), path)
        else:
            source.leave_out(path, NO_NUMBER)
    return _Folder(shots, source.by_stem(folder / "analyticsData"))
