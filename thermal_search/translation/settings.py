"""The settings of `thermal-search translate`, declared once: flags, checks and documentation."""

from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from pydantic import Field, field_validator

from thermal_search.command_line import Settings, Switch
from thermal_search.errors import SettingsError

SIZE = Parameter(group=Group("Size", sort_key=1))
PIXELS = Parameter(group=Group("Pixels", sort_key=2))
WORKERS = Parameter(group=Group("Workers", sort_key=3))
"""The groups of flags in --help and in docs/flags.md."""

Size = Literal["image", "generator", "native"]
Fit = Literal["squeeze", "pad"]

MAX_WORKERS = 10_000


class TranslationSettings(Settings, frozen=True):
    """How images are translated. A value out of range raises SettingsError."""

    size: Annotated[Size, SIZE] = "image"
    """Size of the thermal images: the RGB image's (image: generated at the generator's size and
    resized), the generator's (generator), or the RGB image's without any resizing (native: for
    generators that take images of any size)."""

    fit: Annotated[Fit, SIZE] = "squeeze"
    """How an image becomes a square for the generator: squeeze (as process.py did to the training
    images) or pad (the aspect ratio is kept; mirrored borders fill the square, and are cut off
    afterwards)."""

    tiles: Annotated[Switch, SIZE] = False
    """Generate the image at its own size in overlapping tiles of the generator's size, and blend
    them."""

    overlap: Annotated[int | None, Field(ge=0), SIZE] = None
    """Pixels that neighboring tiles share at least; default: a quarter of a tile."""

    depth: Annotated[int, PIXELS] = 8
    """Bits of a gray level: 8 or 16."""

    celsius: Annotated[Switch, PIXELS] = False
    """Write 16-bit PNG in units of 0.01 K; needs a generator trained on 16-bit thermal images."""

    colormap: Annotated[str | None, PIXELS] = None
    """Write false colors by this colormap of matplotlib, such as inferno."""

    side_by_side: Annotated[Switch, PIXELS] = False
    """Write the RGB image and the thermal image beside each other."""

    seed: Annotated[int, Field(ge=0, le=2**63 - 1), PIXELS] = 0
    """Seed of the latent and of dropout, which are the same for all images."""

    workers: Annotated[int | None, Field(ge=1, le=MAX_WORKERS), WORKERS] = None
    """Processes that translate; default: one per GPU, or one without a GPU."""

    address: Annotated[str | None, WORKERS] = None
    """Translate on this Ray cluster, whose machines must reach model, input and output: an address,
    auto (the cluster of this machine) or local."""

    @field_validator("depth")
    @classmethod
    def _check_depth(cls, depth: int) -> int:
        if depth not in (8, 16):
            raise ValueError("must be 8 or 16")
        return depth

    def check(self) -> None:
        """SettingsError if two settings exclude each other."""
        for value, others in self._exclusions():
            for flag, is_set in others.items():
                if is_set:
                    raise SettingsError(f"{value} excludes {flag}: leave one of them out.")
        if self.overlap is not None and not self.tiles:
            raise SettingsError("--overlap is of tiles: pass --tiles too, or leave it out.")

    def _exclusions(self) -> list[tuple[str, dict[str, bool]]]:
        """Flags in use, each with those that it excludes."""
        colors = {"--side-by-side": self.side_by_side, "--colormap": self.colormap is not None}
        is_16_bit = self.depth == 16
        sizes = {"--fit": self.fit != "squeeze"}
        exclusions: list[tuple[str, dict[str, bool]]] = []
        if self.celsius:
            exclusions.append(("--celsius", {"--depth 16": is_16_bit, **colors}))
        if is_16_bit:
            exclusions.append(("--depth 16", colors))
        if self.tiles:
            exclusions.append(("--tiles", {f"--size {self.size}": self.size != "image", **sizes}))
        if self.size == "native":
            exclusions.append(("--size native", sizes))
        return exclusions

    def recorded(self) -> dict[str, Any]:
        """The settings that decide the pixels, as JSON values."""
        return self.model_dump(mode="json", exclude={"workers", "address"})
