"""What every layout comes down to: moments, what they show, and where they were recorded."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from thermal_search.data.manifest import Kind, Split

Pairing = Literal["official", "recovered", "assumed"]
"""Who says that two images are a pair: the dataset's authors (a map, a list, a documented rule);
we, from traces they left (video descriptions, file names); or nobody, the names being equal."""


@dataclass(frozen=True)
class Frame:
    """One moment: a pair, or an image of one kind without a partner."""

    rgb: Path | None
    thermal: Path | None
    recording: str
    """Frames of one recording look alike: they stay in one split."""

    name: str
    """Sorts by time within a recording."""

    split: Split | None = None
    """Where the dataset's authors put it; None: ours to decide."""

    same_size: bool = False
    """Whether both images must have one size, being aligned to the pixel."""

    pairing: Pairing = "official"

    rgb_side: Literal["left", "right"] | None = None
    """The half of a side-by-side image that is RGB, `rgb` and `thermal` being the same file."""

    radiometric: Path | None = None
    """The 16-bit image of the same thermal moment."""

    @property
    def kind(self) -> Kind:
        if self.rgb and self.thermal:
            return "pairs"
        return "rgb" if self.rgb else "thermal"


@dataclass
class Recordings:
    """What a layout found."""

    frames: list[Frame] = field(default_factory=list[Frame])
    left_out: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """(file, relative to the source; reason)."""

    notes: list[str] = field(default_factory=list[str])
    """What a reader of the dataset should know."""
