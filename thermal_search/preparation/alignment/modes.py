"""`--align` in words to alignments, and what every recording gets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from thermal_search.errors import DatasetError
from thermal_search.preparation.alignment.estimation import Found
from thermal_search.preparation.alignment.geometry import (
    Alignment,
    Boxes,
    Center,
    Table,
    read_homographies,
)

ALIGN_MODES = "none, center, table, homography:FILE or auto"


def choose(way: str, fields_of_view: tuple[float, float]) -> Mapping[str, Alignment] | None:
    """By recording, `*` standing for every other; None: to be estimated. DatasetError otherwise.

    `fields_of_view` are the horizontal angles of the thermal and the RGB camera in degrees.
    """
    if way == "auto":
        return None
    if way == "none":
        return {"*": Boxes()}
    if way == "center":
        return {"*": Center(*fields_of_view)}
    if way == "table":
        return {"*": Table()}
    if way.startswith("homography:"):
        return read_homographies(Path(way.removeprefix("homography:")))
    raise DatasetError(f"--align must be {ALIGN_MODES}, but is {way!r}.")


def settle(found: Sequence[Found], way: str) -> tuple[Mapping[str, Alignment], list[str]]:
    """Every recording's alignment, and notes; DatasetError where one has none.

    A recording that cannot be matched gets the median of the others: the cameras are the same.
    """
    known = {item.recording: item.alignment for item in found if item.alignment}
    lost = [item.recording for item in found if not item.alignment]
    if not lost:
        return known, []
    if way != "auto":
        raise DatasetError(
            f"{way.removeprefix('homography:')} has no matrix for {len(lost)} recordings (first: "
            f"{lost[0]}): add them, or one for all others under *."
        )
    boxes = [alignment for alignment in known.values() if isinstance(alignment, Boxes)]
    if not boxes:
        raise DatasetError(
            "--align auto found no recording whose edges match: pass another --align, or a "
            "homography file."
        )
    rgb = np.median([box.rgb for box in boxes], axis=0).tolist()
    thermal = np.median([box.thermal for box in boxes], axis=0).tolist()
    median = Boxes(rgb=tuple(rgb), thermal=tuple(thermal))
    note = (
        f"{len(lost)} recordings could not be aligned by their edges and have the median alignment "
        f"of the others: {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}."
    )
    return known | dict.fromkeys(lost, median), [note]
