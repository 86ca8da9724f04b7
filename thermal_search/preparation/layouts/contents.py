"""What every layout's reader returns: frames, unusable files, and notes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from thermal_search.data.manifest import FrameKind, Pairing, Split
from thermal_search.preparation.layouts.recordings import natural_key


@dataclass(frozen=True)
class SourceFrame:
    """One moment of a recording: a pair of images, or one image without a partner."""

    rgb: Path | None
    thermal: Path | None
    recording: str
    """Frames of one recording look alike, so they stay in one split."""

    name: str
    """Of its file, without the extension."""

    split: Split | None = None
    """The split of the dataset's authors; None if they made none: we choose it."""

    same_size: bool = False
    """Whether both images must have the same size, because they are aligned to the pixel."""

    pairing: Pairing = "official"

    rgb_side: Literal["left", "right"] | None = None
    """The half of a side-by-side image that is RGB; `rgb` and `thermal` are then the same file."""

    radiometric: Path | None = None
    """The 16-bit version of the thermal image."""

    position: int = 0
    """Rank by time within its recording; frames of one rank are ordered by the numbers in their
    names."""

    @property
    def moment(self) -> tuple[int, tuple[str | int, ...]]:
        """Sorts by time within a recording."""
        return self.position, natural_key(self.name)

    @property
    def kind(self) -> FrameKind:
        if self.rgb and self.thermal:
            return "pairs"
        return "rgb" if self.rgb else "thermal"


@dataclass
class SourceContents:
    """Everything that a layout's reader got out of a source."""

    frames: list[SourceFrame] = field(default_factory=list[SourceFrame])
    unusable_files: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(file, relative to the source and safe to print; reason)."""

    recognized_by: set[str] = field(default_factory=set[str])
    """What recordings were recognized by, in words."""

    notes: list[str] = field(default_factory=list[str])
    """What a reader of the dataset should know."""
