"""FLIR ADAS v2 (2022).

    images_{rgb,thermal}_{train,val}/   video_{rgb,thermal}_test/   rgb_to_thermal_vid_map.json
    each with data/ and index.json, thermal ones also with analyticsData/ (16-bit images)

The map, in the folder of these six or in its parent, names the official pairs of video frames. The
stills have no map; `flir_v2_stills` recovers pairs. A file is video-VIDEO-frame-INDEX-FRAME.jpg.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.layouts.flir_v2_stills import Shot, pair_stills
from thermal_search.preparation.layouts.source import Source, plain_name

MAP = "rgb_to_thermal_vid_map.json"
NAME = re.compile(r"video-([A-Za-z0-9]+)-frame-([0-9]{1,9})-[A-Za-z0-9]+\.(?:jpe?g|png)", re.I)
NO_NUMBER = "no video and frame number in its name"
MISSING = "named by the map, but missing"


@dataclass(frozen=True)
class _Folder:
    shots: Mapping[str, Shot]
    """By file name."""

    radiometric: Mapping[str, Path]
    """16-bit images by stem."""

    def radiometric_of(self, shot: Shot | None) -> Path | None:
        return self.radiometric.get(shot.path.stem) if shot else None

    def get(self, name: str) -> Shot | None:
        """By the name in the map, whose extension may differ from the file's."""
        if name in self.shots:
            return self.shots[name]
        stem = Path(name).stem
        return next((s for e in (".jpg", ".jpeg", ".png") if (s := self.shots.get(stem + e))), None)


def find(root: Path) -> Path | None:
    for folder in (root, root / "FLIR_ADAS_v2"):
        if (folder / "video_rgb_test").is_dir() and (folder / "video_thermal_test").is_dir():
            return folder
    return None


def read(source: Source, root: Path) -> list[SourceFrame]:
    source.contents.recognized_by.add("the videos' ids")
    stills = [frame for split in ("train", "val") for frame in _read_stills(source, root, split)]
    paired = {frame.split for frame in stills if frame.kind == "pairs"}
    # The authors' test split is the videos. If the stills have no pairs to train and to validate
    # on, the videos are the only pairs, and are assigned to all splits.
    video_split: Split | None = "test" if paired == {"train", "val"} else None
    return _read_videos(source, root, video_split) + stills


def _read_videos(source: Source, root: Path, split: Split | None) -> list[SourceFrame]:
    rgb = _read_folder(source, root / "video_rgb_test")
    thermal = _read_folder(source, root / "video_thermal_test")
    frames: list[SourceFrame] = []
    used: set[Path] = set()
    for rgb_name, thermal_name in _read_map(source, root):
        rgb_shot, thermal_shot = rgb.get(rgb_name), thermal.get(thermal_name)
        if not rgb_shot or not thermal_shot:
            folder, name = ("rgb", rgb_name) if not rgb_shot else ("thermal", thermal_name)
            source.mark_unusable(f"video_{folder}_test/data/{name}", MISSING)
        elif thermal_shot.path in used:
            source.mark_unusable(f"{MAP}: {thermal_name}", "named by the map twice")
        else:
            used |= {rgb_shot.path, thermal_shot.path}
            frames.append(
                SourceFrame(
                    rgb_shot.path,
                    thermal_shot.path,
                    rgb_shot.video,
                    rgb_shot.name,
                    split=split,
                    radiometric=thermal.radiometric_of(thermal_shot),
                )
            )
    unnamed = sum(s.path not in used for f in (rgb, thermal) for s in f.shots.values())
    if unnamed:
        source.contents.notes.append(f"{unnamed} video frames are not in the map and were omitted.")
    return frames


def _read_map(source: Source, root: Path) -> list[tuple[str, str]]:
    """(RGB name, thermal name), all plain file names; other entries are unusable."""
    # The archive has it next to the folder, some copies have it inside.
    path = next((p for p in (root / MAP, root.parent / MAP) if p.is_file()), None)
    if path is None:
        raise DatasetError(
            f"{root} must hold {MAP}, which pairs RGB and thermal frames, but does not: copy it "
            "from the archive into this folder."
        )
    content = source.read_json(path)
    if not isinstance(content, dict):
        raise DatasetError(f"{path} must map RGB file names to thermal ones, but is not an object.")
    pairs: list[tuple[str, str]] = []
    for entry in sorted(content.items()):  # pyright: ignore[reportUnknownVariableType]
        names = [plain_name(n.removeprefix("data/")) if isinstance(n, str) else None for n in entry]
        if names[0] and names[1]:
            pairs.append((names[0], names[1]))
        else:
            source.mark_unusable(f"{MAP}: {str(entry)[:100]}", "must be two plain file names")
    return pairs


def _read_stills(source: Source, root: Path, split: Split) -> list[SourceFrame]:
    rgb_folder, thermal_folder = (root / f"images_{kind}_{split}" for kind in ("rgb", "thermal"))
    rgb = _read_folder(source, rgb_folder)
    thermal = _read_folder(source, thermal_folder)
    pairs = pair_stills(
        source,
        (rgb_folder / "index.json", thermal_folder / "index.json"),
        (list(rgb.shots.values()), list(thermal.shots.values())),
    )
    return [
        SourceFrame(
            still.rgb.path if still.rgb else None,
            still.thermal.path if still.thermal else None,
            still.recording,
            still.name,
            split=split,
            pairing="recovered",
            radiometric=thermal.radiometric_of(still.thermal),
        )
        for still in pairs
    ]


def _read_folder(source: Source, folder: Path) -> _Folder:
    shots: dict[str, Shot] = {}
    for name, path in source.by_name(folder / "data").items():
        if match := NAME.fullmatch(name):
            shots[name] = Shot(match[1], int(match[2]), path)
        else:
            source.mark_unusable(path, NO_NUMBER)
    return _Folder(shots, source.by_stem(folder / "analyticsData"))
