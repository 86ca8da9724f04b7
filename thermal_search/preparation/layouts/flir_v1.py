"""FLIR ADAS v1 (2018), its later 1.3 form, the San Francisco set, and the Europe add-on.

    v1      Training/{RGB, PreviewData, Data}      Validation/...   Video/...
    v1.3    train/{RGB, thermal_8_bit, thermal_16_bit}   val/...    video/...
    Europe  train/{RGB, thermal_8_bit, thermal_16_bit}, europe_thermal_to_rgb.json
            val/..., val_video/...

In v1 and v1.3 images of equal stems are pairs (.jpg beside .jpeg); about 6 % of the thermal images
have no RGB image, by the ReadMe: they stay without a partner. In Europe's a map names the pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from thermal_search.data.manifest import Split
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.layouts.pairing import pair_by_stem
from thermal_search.preparation.layouts.recordings import recognize
from thermal_search.preparation.layouts.source import Source, items, plain_name, text

EUROPE_MAP = "europe_thermal_to_rgb.json"


@dataclass(frozen=True)
class Form:
    """The names of the folders."""

    nested: str
    """The folder that the archive puts around everything."""

    splits: Mapping[str, Split]
    """By folder."""

    thermal: str
    radiometric: str
    has_map: bool = False

    def find(self, root: Path) -> Path | None:
        first = next(iter(self.splits))
        for folder in (root, root / self.nested):
            train = folder / first
            has_images = (train / "RGB").is_dir() and (train / self.thermal).is_dir()
            if has_images and (train / EUROPE_MAP).is_file() == self.has_map:
                return folder
        return None

    def read(self, source: Source, root: Path) -> list[SourceFrame]:
        frames: list[SourceFrame] = []
        for name, split in self.splits.items():
            folder = root / name
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


# The video is a drive of its own, independent of the others: a natural test split.
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


def read_europe(source: Source, root: Path) -> list[SourceFrame]:
    """Pairs by the maps of train/ and val/, whose files may also lie in val_video/."""
    folders = [root / name for name in EUROPE.splits]
    rgb = {folder: source.by_name(folder / "RGB") for folder in folders}
    thermal = {folder: source.by_name(folder / EUROPE.thermal) for folder in folders}
    radiometric = {folder: source.by_stem(folder / EUROPE.radiometric) for folder in folders}
    frames: list[SourceFrame] = []
    used: set[Path] = set()
    for owner in folders[:2]:
        map_file = owner / EUROPE_MAP
        if not map_file.is_file():
            continue
        content = source.read_json(map_file)
        shown = source.shown(map_file)
        entries = items(content, "thermal_to_rgb_ordered_frames")
        if not entries:
            source.mark_unusable(map_file, "must hold a list thermal_to_rgb_ordered_frames")
        pairs: dict[str, tuple[Path, Path, Path]] = {}
        for number, entry in enumerate(entries):
            names = [plain_name(text(entry, f"{kind}_filename")) for kind in ("thermal", "rgb")]
            if None in names:
                source.mark_unusable(shown, f"entry {number}: must have two plain file names")
                continue
            folder = next((f for f in (owner, root / "val_video") if names[0] in thermal[f]), owner)
            thermal_path = thermal[folder].get(names[0] or "")
            rgb_path = rgb[folder].get(names[1] or "")
            if not thermal_path or not rgb_path:
                missing = names[0] if not thermal_path else names[1]
                source.mark_unusable(f"{shown}: {missing}", "named by the map, but missing")
            elif thermal_path in used or rgb_path in used:
                source.mark_unusable(f"{shown}: {names[0]}", "named by the map twice")
            else:
                used |= {thermal_path, rgb_path}
                pairs[thermal_path.stem] = (rgb_path, thermal_path, folder)
        split = EUROPE.splits[owner.name]
        recordings = recognize(pairs)
        source.contents.recognized_by |= recordings.bases
        frames += [
            SourceFrame(
                rgb_path,
                thermal_path,
                f"{split}/{recordings.recording[stem]}",
                stem,
                split=split,
                position=recordings.position[stem],
                radiometric=radiometric[folder].get(stem),
            )
            for stem, (rgb_path, thermal_path, folder) in sorted(pairs.items())
        ]
    frames += _unpaired(rgb, thermal, radiometric, used)
    return frames


def _unpaired(
    rgb: Mapping[Path, Mapping[str, Path]],
    thermal: Mapping[Path, Mapping[str, Path]],
    radiometric: Mapping[Path, Mapping[str, Path]],
    used: set[Path],
) -> list[SourceFrame]:
    """Images that no map names, as frames without a partner."""
    frames: list[SourceFrame] = []
    for folder in rgb:
        split = EUROPE.splits[folder.name]
        for kind, images in (("rgb", rgb[folder]), ("thermal", thermal[folder])):
            rest = {path.stem: path for path in images.values() if path not in used}
            recordings = recognize(rest)
            frames += [
                SourceFrame(
                    path if kind == "rgb" else None,
                    path if kind == "thermal" else None,
                    f"{split}/{kind}/{recordings.recording[stem]}",
                    stem,
                    split=split,
                    position=recordings.position[stem],
                    radiometric=radiometric[folder].get(stem) if kind == "thermal" else None,
                )
                for stem, path in sorted(rest.items())
            ]
    return frames
