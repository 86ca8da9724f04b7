"""The settings of a preparation: what process.py takes as flags and records in preparation.json.

This module is the only place that declares them. It imports neither torch nor Ray, so that
`python process.py --help` answers at once.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from cyclopts import Group, Parameter
from pydantic import BeforeValidator, Field, field_validator

from thermal_search.choices import HOMOGRAPHY_PREFIX, FixedAlignment, Split
from thermal_search.command_line import Settings, Switch

LayoutName = Literal[
    "flir-v2",
    "flir-v1",
    "flir-v1.3",
    "flir-europe",
    "flir-aligned",
    "kaist",
    "llvip",
    "m3fd",
    "msrs",
    "roadscene",
    "side-by-side",
    "side-by-side-ba",
    "unpaired",
    "folders",
]
ResizeFilter = Literal["bicubic", "bilinear", "lanczos", "box"]
ThermalDepth = Literal["8bit", "16bit"]

ALIGN_MODES: tuple[FixedAlignment, ...] = get_args(FixedAlignment)
"""The values of --align beside a homography file."""

FLIR_V2_DEGREES = (45.0, 52.8)
"""Horizontal fields of view of FLIR ADAS v2's cameras, thermal and RGB (its README)."""

MAX_SEED = 2**32 - 1
MAX_WORKERS = 1024
"""More is a typing error."""

SOURCE = Parameter(group=Group("Source and output", sort_key=0))
IMAGES = Parameter(group=Group("Images", sort_key=1))
SPLITS = Parameter(group=Group("Splits", sort_key=2))
ALIGNMENT = Parameter(group=Group("Alignment", sort_key=3))
THERMAL = Parameter(group=Group("Thermal", sort_key=4))
SPEED = Parameter(group=Group("Speed", sort_key=5))


def _numbers(value: Any) -> Any:
    """`70,15,15`, or the list of such texts that a command line gives, as numbers."""
    texts: Any = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):  # pyright: ignore[reportUnknownVariableType] - of a file
        return value
    try:
        return [float(number) for text in texts for number in text.split(",")]  # pyright: ignore[reportUnknownVariableType] - of a file
    except ValueError:
        raise ValueError("must be numbers separated by commas") from None


def _listed(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


Numbers = Annotated[tuple[float, ...], BeforeValidator(_numbers), Parameter(show_default=_listed)]
"""Numbers that a command line separates by commas."""


class PreparationSettings(Settings, frozen=True):
    """How a recording becomes a dataset. A value out of range raises SettingsError."""

    layout: Annotated[Literal["auto", LayoutName], SOURCE] = "auto"
    """The source's layout (docs/layouts.md); auto recognizes it by its folders."""

    official_only: Annotated[Switch, SOURCE] = False
    """Recover no pairs: stills of FLIR ADAS v2, which its authors did not pair, stay unpaired."""

    follow_links: Annotated[Switch, SOURCE] = False
    """Read files outside of the source that links in it lead to."""

    every_nth: Annotated[int, Field(ge=1), SOURCE] = 1
    """Take every n-th frame of a recording: neighboring frames are nearly the same."""

    max_unusable: Annotated[float, Field(ge=0, lt=1), SOURCE] = 0.05
    """Fraction of files that may be unusable, from 0 to below 1."""

    size: Annotated[int, IMAGES] = 256
    """Height and width of the images in pixels: a power of two from 32 to 1024."""

    filter: Annotated[ResizeFilter, IMAGES] = "bicubic"
    """The resampling filter."""

    splits: Annotated[
        Numbers,
        SPLITS,
        Parameter(metavar="TRAIN,VAL,TEST", allow_leading_hyphen=True),
    ] = (70.0, 15.0, 15.0)
    """Weights of the splits, for recordings that their authors did not split."""

    seed: Annotated[int, Field(ge=0, le=MAX_SEED), SPLITS] = 0
    """Seed of the splits."""

    align: Annotated[str, ALIGNMENT] = "none"
    """How to align: none, center, table (FLIR v1's crops), auto (by edges) or homography:FILE."""

    fields_of_view: Annotated[
        Numbers,
        ALIGNMENT,
        Parameter(metavar="THERMAL,RGB", allow_leading_hyphen=True),
    ] = FLIR_V2_DEGREES
    """Horizontal angles in degrees, for --align center; those of FLIR ADAS v2 by default."""

    preview: Annotated[Switch, ALIGNMENT] = False
    """Measure the alignment error that remains, and draw OUTPUT/alignment.png."""

    thermal: Annotated[ThermalDepth, THERMAL] = "8bit"
    """Gray levels, or the counts of radiometric images."""

    celsius: Annotated[
        tuple[float, float] | None,
        THERMAL,
        Parameter(metavar="LOW HIGH"),
    ] = None
    """Degrees Celsius at -1 and +1 of a 16-bit dataset; default: 99.8 % of the training pixels."""

    kelvin_per_count: Annotated[float, Field(gt=0, le=1000), THERMAL] = 0.04
    """Kelvin of one 16-bit count; FLIR's low gain by default."""

    celsius_at_zero: Annotated[float, Field(ge=-1e5, le=1e5), THERMAL] = -273.15
    """Degrees Celsius of the 16-bit count 0."""

    fast: Annotated[Switch, SPEED] = False
    """Let libjpeg scale large JPEGs while decoding: faster, but not exactly the same pixels."""

    workers: Annotated[int | None, Field(ge=1, le=MAX_WORKERS), SPEED] = None
    """Worker processes; one per core by default."""

    address: Annotated[str | None, SPEED] = None
    """Use all cores of this Ray cluster, whose machines share the disk."""

    def recorded(self) -> dict[str, Any]:
        """The settings that decide the dataset's bytes, except the layout, as JSON values."""
        return self.model_dump(
            mode="json", exclude={"layout", "follow_links", "max_unusable", "workers", "address"}
        )

    @property
    def split_fractions(self) -> Mapping[Split, float]:
        """Fractions of the pairs, with sum 1."""
        train, val, test = self.splits
        total = train + val + test
        return {"train": train / total, "val": val / total, "test": test / total}

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: int) -> int:
        if not 32 <= size <= 1024 or size & (size - 1):
            raise ValueError("must be a power of two from 32 to 1024")
        return size

    @field_validator("splits")
    @classmethod
    def _check_splits(cls, splits: tuple[float, ...]) -> tuple[float, ...]:
        if len(splits) != 3 or min(splits[:2]) <= 0 or splits[2] < 0:
            raise ValueError(
                "must be three numbers for train, val and test, such as 70,15,15, of which only "
                "the last may be 0"
            )
        return splits

    @field_validator("align")
    @classmethod
    def _check_align(cls, align: str) -> str:
        is_file = align.startswith(HOMOGRAPHY_PREFIX)
        if not is_file and align not in ALIGN_MODES:
            raise ValueError(f"must be {', '.join(ALIGN_MODES)} or {HOMOGRAPHY_PREFIX}FILE")
        return align

    @field_validator("fields_of_view")
    @classmethod
    def _check_fields_of_view(cls, degrees: tuple[float, ...]) -> tuple[float, ...]:
        if len(degrees) != 2 or not all(0 < angle < 180 for angle in degrees):
            raise ValueError("must be two angles between 0 and 180 degrees, thermal and RGB")
        return degrees

    @field_validator("celsius")
    @classmethod
    def _check_celsius(cls, celsius: tuple[float, float] | None) -> tuple[float, float] | None:
        if celsius and not -1e5 <= celsius[0] < celsius[1] <= 1e5:
            raise ValueError("must be LOW HIGH with LOW below HIGH, both possible temperatures")
        return celsius
