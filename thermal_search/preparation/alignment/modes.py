"""`--align`: the alignments that are known in advance, and the alignment of every recording."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from thermal_search.choices import HOMOGRAPHY_PREFIX
from thermal_search.errors import DatasetError
from thermal_search.preparation.alignment.estimation import MeasuredAlignment
from thermal_search.preparation.alignment.geometry import (
    Alignment,
    Boxes,
    Center,
    Table,
    read_homographies,
)
from thermal_search.preparation.settings import PreparationSettings

MAX_NAMED = 5
"""Recordings that a note names."""


def alignments_of_mode(settings: PreparationSettings) -> Mapping[str, Alignment] | None:
    """By recording, `*` for every other one; None if they are to be estimated.

    Raises DatasetError.
    """
    mode = settings.align
    if mode == "auto":
        return None
    if mode == "center":
        return {"*": Center(*settings.fields_of_view)}
    if mode == "table":
        return {"*": Table()}
    if mode.startswith(HOMOGRAPHY_PREFIX):
        return read_homographies(Path(mode.removeprefix(HOMOGRAPHY_PREFIX)))
    return {"*": Boxes()}


def complete_alignments(
    measured: Sequence[MeasuredAlignment], mode: str
) -> tuple[Mapping[str, Alignment], list[str]]:
    """Every recording's alignment, and notes; DatasetError if a recording has none.

    In mode auto, a recording that could not be matched gets the median of the others, because the
    cameras are the same.
    """
    present = {item.recording: item.alignment for item in measured if item.alignment}
    missing = [item.recording for item in measured if not item.alignment]
    if not missing:
        return present, []
    if mode != "auto":
        raise DatasetError(
            f"{mode.removeprefix(HOMOGRAPHY_PREFIX)} has no matrix for {len(missing)} recordings "
            f"(first: {missing[0]}): add them, or one for all others under *."
        )
    boxes = [alignment for alignment in present.values() if isinstance(alignment, Boxes)]
    if not boxes:
        raise DatasetError(
            "--align auto found no recording whose edges match: pass another --align, or a "
            "homography file."
        )
    rgb = np.median([box.rgb for box in boxes], axis=0).tolist()
    thermal = np.median([box.thermal for box in boxes], axis=0).tolist()
    median = Boxes(rgb=tuple(rgb), thermal=tuple(thermal))
    more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
    note = (
        f"{len(missing)} recordings could not be aligned by their edges and have the median "
        f"alignment of the others: {', '.join(missing[:MAX_NAMED])}{more}."
    )
    return present | dict.fromkeys(missing, median), [note]
