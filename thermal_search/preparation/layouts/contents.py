"""What every layout's reader returns: frames, unusable files, and notes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from thermal_search.data.manifest import FrameKind, Pairing, Split


@dataclass(frozen=True)
class SourceFrame:
    """One moment of a recording: a pair of images, or one image without a partner."""

    rgb: Path | None
    thermal: Path | None
    recording: str
    """Frames of one recording look alike, so they stay in one split."""

    name: str
    """Sorts by time within a recording."""

    split: Split | None = None
    """The split of the dataset's authors; None if they made none: we choose it."""

    same_size: bool = False
    """Whether both images must have the same size, because they are aligned to the pixel."""

    pairing: Pairing = "official"

    rgb_side: Literal["left", "right"] | None = None
    """The half of a side-by-side image that is RGB; `rgb` and `thermal` are then the same file."""

    radiometric: Path | None = None
    """The 16-bit version of the thermal image."""

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

    notes: list[str] = field(default_factory=list[str])
    """What a reader of the dataset should know."""
