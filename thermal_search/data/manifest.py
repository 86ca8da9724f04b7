"""What a prepared dataset says of itself: DATASET/manifest.json."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from thermal_search.errors import DatasetError
from thermal_search.images import Temperatures
from thermal_search.storage import Location

FILE = "manifest.json"
SCHEMA_VERSION = 3

Kind = Literal["pairs", "rgb", "thermal"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Shard:
    path: str
    """Relative to the dataset's folder."""

    kind: Kind
    split: Split
    rows: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    folder: Location
    source: str
    """The recording's folder name."""

    layout: str
    size: int
    """Height and width of every image in pixels."""

    filter: str
    """The resampling filter."""

    temperatures: Temperatures | None
    """What the thermal frames' 16-bit counts mean; None where they are 8-bit pixels."""

    alignment: Mapping[str, Any]
    """The way pairs were aligned, and by recording what it was and how well thermal then fits."""

    recordings: Mapping[str, Mapping[str, Any]]
    """By recording: its split, and how many frames of each kind it has."""

    left_out: Sequence[Mapping[str, str]]
    """Files that could not be used, each with its reason."""

    dropped_pairs: Sequence[Mapping[str, Any]]
    """Recovered pairs that do not show one scene, each with its score and the reason."""

    notes: Sequence[str]
    shards: Sequence[Shard]

    @property
    def digest(self) -> str:
        """A hash of all pixels: two datasets with the same one hold the same frames."""
        hashed = hashlib.sha256(f"{SCHEMA_VERSION} {self.size} {self.temperatures}".encode())
        for shard in self.shards:
            hashed.update(f"{shard.path} {shard.sha256}".encode())
        return hashed.hexdigest()

    @property
    def statistics(self) -> Location:
        """The folder of what is measured of these frames, and of no others that lie here later."""
        return self.folder / "statistics" / self.digest[:10]

    def count(self, kind: Kind, split: Split) -> int:
        return sum(s.rows for s in self.shards if s.kind == kind and s.split == split)

    def shard_paths(self, kind: Kind, split: Split) -> list[Location]:
        return [self.folder / s.path for s in self.shards if s.kind == kind and s.split == split]

    def counts(self) -> dict[str, dict[str, int]]:
        """Frames by kind and split."""
        kinds: list[Kind] = ["pairs", "rgb", "thermal"]
        splits: list[Split] = ["train", "val", "test"]
        return {kind: {split: self.count(kind, split) for split in splits} for kind in kinds}

    def save(self) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "layout": self.layout,
            "size": self.size,
            "filter": self.filter,
            "temperatures": asdict(self.temperatures) if self.temperatures else None,
            "alignment": dict(self.alignment),
            "digest": self.digest,
            "counts": self.counts(),
            "recordings": dict(self.recordings),
            "left_out": list(self.left_out),
            "dropped_pairs": list(self.dropped_pairs),
            "notes": list(self.notes),
            "shards": [asdict(shard) for shard in self.shards],
        }
        (self.folder / FILE).write_text(json.dumps(content, indent=2) + "\n")


def read_manifest(folder: Location | Path) -> Manifest:
    """The manifest of a prepared dataset; DatasetError where it is not one, or not whole."""
    folder = Location.of(folder)
    path = folder / FILE
    try:
        content = json.loads(path.read_text())
        if content["schema_version"] != SCHEMA_VERSION:
            raise DatasetError(
                f"{folder} has schema version {content['schema_version']}, but this version reads "
                f"{SCHEMA_VERSION}: prepare it again with process.py."
            )
        manifest = Manifest(
            folder=folder,
            source=content["source"],
            layout=content["layout"],
            size=content["size"],
            filter=content["filter"],
            temperatures=_temperatures(content["temperatures"]),
            alignment=content["alignment"],
            recordings=content["recordings"],
            left_out=content["left_out"],
            dropped_pairs=content["dropped_pairs"],
            notes=content["notes"],
            shards=[Shard(**shard) for shard in content["shards"]],
        )
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(
            f"{folder} holds no prepared dataset ({FILE} is missing): write one with "
            "python process.py SOURCE OUTPUT."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path} cannot be read ({type(error).__name__}: {error}): prepare the dataset again."
        ) from None
    _check(manifest)
    return manifest


def _temperatures(content: Mapping[str, float] | None) -> Temperatures | None:
    return None if content is None else Temperatures(**content)


def verify(manifest: Manifest) -> None:
    """Reads every shard and compares checksums; DatasetError at the first that differs."""
    for shard in manifest.shards:
        if checksum(manifest.folder / shard.path) != shard.sha256:
            raise DatasetError(
                f"{manifest.folder / shard.path} is damaged: its checksum is not the manifest's. "
                "Prepare the dataset again."
            )


def checksum(place: Location) -> str:
    with place.open_input() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType] - files can do more than BinaryIO promises


def _check(manifest: Manifest) -> None:
    present = set(manifest.folder.list(deep=True))
    for shard in manifest.shards:
        path = PurePosixPath(shard.path)
        if path.is_absolute() or ".." in path.parts:
            raise DatasetError(f"{FILE} names {shard.path}, which is outside {manifest.folder}.")
        if manifest.folder / shard.path not in present:
            raise DatasetError(
                f"{manifest.folder} is not whole: {shard.path} is missing. Prepare it again."
            )
    if (judged := manifest.count("pairs", "val")) < 2:
        raise DatasetError(
            f"{manifest.folder} must have at least 2 pairs in its val split to evaluator by, but has "
            f"{judged}: prepare it again with more frames or other --splits."
        )
    apart = manifest.count("rgb", "train") and manifest.count("thermal", "train")
    if not manifest.count("pairs", "train") and not apart:
        raise DatasetError(f"{manifest.folder} has neither pairs nor both kinds to train on.")
