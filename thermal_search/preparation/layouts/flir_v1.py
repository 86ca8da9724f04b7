"""FLIR ADAS v1 (2018), its later 1.3 form, the San Francisco set, and the Europe add-on.

    v1      Training/{RGB, PreviewData, Data}      Validation/...   Video/...
    v1.3    train/{RGB, thermal_8_bit, thermal_16_bit}   val/...    video/...
    Europe  train/{RGB, thermal_8_bit, thermal_16_bit}, europe_thermal_to_rgb.json
            val/..., val_video/...

Equal stems are one moment in v1 and v1.3 (.jpg beside .jpeg); about 6 % of the thermal images
have no RGB one, by its ReadMe: they stay, without a partner. In Europe's the map pairs them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.layouts.pairing import drives, pair_by_stem
from thermal_search.preparation.layouts.source import Source, items, plain_name, text

EUROPE_MAP = "europe_thermal_to_rgb.json"


@dataclass(frozen=True)
class Form:
    """What the folders are called."""

    nested: str
    """The folder that the archive puts around everything."""

    parts: Mapping[str, Split]
    thermal: str
    radiometric: str
    has_map: bool = False

    def find(self, root: Path) -> Path | None:
        first = next(iter(self.parts))
        for place in (root, root / self.nested):
            train = place / first
            folders = (train / "RGB").is_dir() and (train / self.thermal).is_dir()
            if folders and (train / EUROPE_MAP).is_file() == self.has_map:
                return place
        return None

    def read(self, source: Source, place: Path) -> list[Frame]:
        frames: list[Frame] = []
        for name, split in self.parts.items():
            folder = place / name
            frames += pair_by_stem(
                source,
                source.by_stem(folder / "RGB"),
                source.by_stem(folder / self.thermal),
                radiometric=source.by_stem(folder / self.radiometric),
                pairing="official",
                split=split,
                keep_single=True,
            )
        return frames


# The video is one drive of its own, independent of the others: the natural test.
V1 = Form(
    "FLIR_ADAS",
    {"Training": "train", "Validation": "val", "Video": "test"},
    thermal="PreviewData",
    radiometric="Data",
)
V1_3 = Form(
    "FLIR_ADAS_1_3",
    {"train": "train", "val": "val", "video": "test"},
    thermal="thermal_8_bit",
    radiometric="thermal_16_bit",
)
EUROPE = Form(
    "Europe_1_0_2",
    {"train": "train", "val": "val", "val_video": "val"},
    thermal="thermal_8_bit",
    radiometric="thermal_16_bit",
    has_map=True,
)


def read_europe(source: Source, place: Path) -> list[Frame]:
    """Pairs by the maps of train/ and val/, whose files may also lie in val_video/."""
    folders = [place / name for name in EUROPE.parts]
    rgb = {folder: source.by_name(folder / "RGB") for folder in folders}
    thermal = {folder: source.by_name(folder / EUROPE.thermal) for folder in folders}
    twins = {folder: source.by_stem(folder / EUROPE.radiometric) for folder in folders}
    frames: list[Frame] = []
    used: set[Path] = set()
    for owner in folders[:2]:
        map_file = owner / EUROPE_MAP
        if not map_file.is_file():
            continue
        content = source.read_json(map_file)
        shown = source.shown(map_file)
        entries = items(content, "thermal_to_rgb_ordered_frames")
        if not entries:
            source.leave_out(map_file, "no list thermal_to_rgb_ordered_frames in it")
        pairs: dict[str, tuple[Path, Path, Path]] = {}
        for number, entry in enumerate(entries):
            names = [plain_name(text(entry, f"{kind}_filename")) for kind in ("thermal", "rgb")]
            if None in names:
                source.leave_out(shown, f"entry {number}: not two names of files")
                continue
            folder = next(
                (f for f in (owner, place / "val_video") if names[0] in thermal[f]), owner
            )
            hot, color = thermal[folder].get(names[0] or ""), rgb[folder].get(names[1] or "")
            if not hot or not color:
                missing = names[0] if not hot else names[1]
                source.leave_out(f"{shown}: {missing}", "named by the map, but missing")
            elif hot in used or color in used:
                source.leave_out(f"{shown}: {names[0]}", "named by the map twice")
            else:
                used |= {hot, color}
                pairs[hot.stem] = (color, hot, folder)
        split = EUROPE.parts[owner.name]
        place_of = drives(pairs)
        frames += [
            Frame(
                color,
                hot,
                f"{split}/{place_of[stem]}",
                stem,
                split=split,
                radiometric=twins[folder].get(stem),
            )
            for stem, (color, hot, folder) in sorted(pairs.items())
        ]
    frames += _alone(rgb, thermal, twins, used)
    return frames


def _alone(
    rgb: Mapping[Path, Mapping[str, Path]],
    thermal: Mapping[Path, Mapping[str, Path]],
    twins: Mapping[Path, Mapping[str, Path]],
    used: set[Path],
) -> list[Frame]:
    """What no map names: frames without a partner."""
    frames: list[Frame] = []
    for folder in rgb:
        split = EUROPE.parts[folder.name]
        for kind, images in (("rgb", rgb[folder]), ("thermal", thermal[folder])):
            left = {path.stem: path for path in images.values() if path not in used}
            place_of = drives(left)
            frames += [
                Frame(
                    path if kind == "rgb" else None,
                    path if kind == "thermal" else None,
                    f"{split}/{kind}/{place_of[stem]}",
                    stem,
                    split=split,
                    radiometric=twins[folder].get(stem) if kind == "thermal" else None,
                )
                for stem, path in sorted(left.items())
            ]
    return frames
