"""DATASET/manifest.json: what a prepared dataset holds, and how it was made."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    PrivateAttr,
    StringConstraints,
    field_validator,
    model_validator,
)

from thermal_search.choices import Split
from thermal_search.documents import Document, Section
from thermal_search.errors import DatasetError, ThermalSearchError
from thermal_search.images import Temperatures
from thermal_search.pair_alignment import PairAlignment
from thermal_search.storage import Location

FILE = "manifest.json"

FrameKind = Literal["pairs", "rgb", "thermal"]

Pairing = Literal["official", "recovered", "assumed"]
"""Who says that two images are a pair: the dataset's authors (a map, a list, a documented rule);
we, from traces that they left (video descriptions, file names); or no one, the names being equal.
"""


class Shard(Section):
    """One Parquet file of raw pixels."""

    path: str
    """Relative to the dataset's folder."""

    kind: FrameKind
    split: Split
    rows: PositiveInt
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or not parts.parts or "\0" in path:
            raise ValueError("a path must stay inside the dataset's folder")
        return path


class RecordingAlignment(Section):
    """How one recording was aligned, and the error that remains."""

    alignment: dict[str, float | list[float]] | None
    """The parameters of the alignment; None if none was found."""

    remaining_error_px: NonNegativeFloat | None
    """Distance from thermal to RGB in pixels of the dataset, at the corner where it is largest, in
    the median over frames; None if too few frames could be matched."""

    median_deviation_px: NonNegativeFloat | None
    """Median over frames of a frame's distance from that median, in pixels."""

    frames_measured: NonNegativeInt


class AlignmentReport(Section):
    """How pairs were aligned."""

    mode: str
    """The value of `--align`."""

    recordings: dict[str, RecordingAlignment]
    """Empty if alignment was neither requested nor measured."""


class RecordingEntry(Section):
    """The frames of one kind of one recording."""

    split: Split
    frames: PositiveInt
    pairing: Pairing | None = None
    """None for frames without a partner."""

    agreement: dict[Literal["5%", "50%", "95%"], float] | None = None
    """Quantiles of the edge agreement of its pairs; None for frames without a partner."""


class UnusableFile(Section):
    file: str
    """Relative to the source."""

    reason: str


class RejectedPair(Section):
    """A recovered pair whose images do not show the same scene."""

    recording: str
    name: str
    pairing: Pairing
    score: float
    """Edge agreement of the two images."""

    reason: str


def _temperatures(content: Any) -> Any:
    """Temperatures from their JSON object; ValueError if it does not have exactly these fields."""
    if not isinstance(content, dict):
        return content
    names = {field.name for field in fields(Temperatures)}
    numbers: list[Any] = list(content.values())  # pyright: ignore[reportUnknownArgumentType] - of JSON
    if content.keys() != names or not all(
        isinstance(number, (int, float)) and not isinstance(number, bool) and math.isfinite(number)
        for number in numbers
    ):
        raise ValueError(f"temperatures must have the numbers {', '.join(sorted(names))}")
    return Temperatures(**content)


class Manifest(Document):
    ERROR: ClassVar[type[ThermalSearchError]] = DatasetError
    REMEDY: ClassVar[str] = "prepare the dataset again with process.py"

    version: Literal[4] = 4  # pyright: ignore[reportIncompatibleVariableOverride] - it never changes
    source: str
    """Name of the recording's folder."""

    layout: str
    size: PositiveInt
    """Height and width of every image in pixels."""

    filter: str
    """The resampling filter."""

    temperatures: Annotated[Temperatures | None, BeforeValidator(_temperatures)]
    """The meaning of the thermal frames' 16-bit counts; None if they are 8-bit pixels."""

    alignment: AlignmentReport
    recordings: dict[str, RecordingEntry]
    """By `RECORDING (KIND)`."""

    unusable_files: list[UnusableFile]
    rejected_pairs: list[RejectedPair]
    notes: list[str]
    shards: Annotated[list[Shard], Field(min_length=1)]

    _folder: Location = PrivateAttr()

    @model_validator(mode="after")
    def _require_known_alignment(self) -> Self:
        _ = self.pair_alignment
        return self

    @property
    def folder(self) -> Location:
        """The dataset's folder."""
        return self._folder

    def at(self, folder: Location) -> "Manifest":
        """This manifest, of the dataset in `folder`."""
        self._folder = folder
        return self

    @property
    def pair_alignment(self) -> PairAlignment:
        """What must be equal to compare metrics with those on another dataset."""
        report = self.alignment
        parameters = {name: entry.alignment for name, entry in report.recordings.items()}
        return PairAlignment.of(report.mode, self.layout, parameters)

    @property
    def digest(self) -> str:
        """A hash of all pixels: two datasets with the same digest hold the same frames."""
        hashed = hashlib.sha256(f"{self.version} {self.size} {self.temperatures}".encode())
        for shard in self.shards:
            hashed.update(f"{shard.path} {shard.sha256}".encode())
        return hashed.hexdigest()

    @property
    def statistics(self) -> Location:
        """The folder of cached statistics of exactly these frames.

        Another dataset that is later written to the same address has another folder.
        """
        return self.folder / "statistics" / self.digest[:10]

    def count(self, kind: FrameKind, split: Split) -> int:
        return sum(s.rows for s in self.shards if s.kind == kind and s.split == split)

    def shard_paths(self, kind: FrameKind, split: Split) -> list[Location]:
        return [self.folder / s.path for s in self.shards if s.kind == kind and s.split == split]

    def counts(self) -> Mapping[FrameKind, Mapping[Split, int]]:
        """Frames by kind and split."""
        kinds: list[FrameKind] = ["pairs", "rgb", "thermal"]
        splits: list[Split] = ["train", "val", "test"]
        return {kind: {split: self.count(kind, split) for split in splits} for kind in kinds}

    def save(self) -> None:
        self.write(self.folder / FILE)


def read_manifest(folder: Location | Path) -> Manifest:
    """The manifest of a prepared dataset.

    DatasetError if the folder holds no dataset, a damaged or incomplete one, or one that nothing
    can be trained or evaluated on.
    """
    folder = Location.of(folder)
    try:
        manifest = Manifest.read(folder / FILE).at(folder)
    except FileNotFoundError:
        raise DatasetError(
            f"{folder} holds no prepared dataset ({FILE} is missing): write one with "
            "python process.py SOURCE OUTPUT."
        ) from None
    _require_complete(manifest)
    return manifest


def verify_checksums(manifest: Manifest) -> None:
    """Reads every shard and compares checksums; DatasetError at the first that differs."""
    for shard in manifest.shards:
        if checksum(manifest.folder / shard.path) != shard.sha256:
            raise DatasetError(
                f"{manifest.folder / shard.path} is damaged: its checksum is not the manifest's. "
                "Prepare the dataset again."
            )


def checksum(path: Location) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open_input() as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType] - files can do more than BinaryIO promises


def _require_complete(manifest: Manifest) -> None:
    folder = manifest.folder
    present = set(folder.list(deep=True))
    for shard in manifest.shards:
        if folder / shard.path not in present:
            raise DatasetError(
                f"{folder} is incomplete: {shard.path} is missing. Prepare it again."
            )
    if (count := manifest.count("pairs", "val")) < 2:
        raise DatasetError(
            f"{folder} must have at least 2 pairs in its val split to evaluate on, but has "
            f"{count}: prepare it again with more frames or other --splits."
        )
    unpaired = manifest.count("rgb", "train") and manifest.count("thermal", "train")
    if not manifest.count("pairs", "train") and not unpaired:
        raise DatasetError(
            f"{folder} must have training pairs, or training frames of both kinds, but has "
            "neither: prepare it again with more frames or other --splits."
        )
