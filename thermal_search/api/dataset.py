"""`ts.prepare`."""

from functools import partial
from pathlib import Path
from typing import Any

from thermal_search.api import Place
from thermal_search.data.manifest import Manifest
from thermal_search.preparation.prepare import prepare as run_preparation
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.staging import stage
from thermal_search.storage import Location


def prepare(
    source: Place, output: Place, *, scratch: str | Path | None = None, **settings: Any
) -> Manifest:
    """Turns a recording of RGB and thermal images into a dataset, as process.py does.

    Args:
        source: a recording's folder (docs/layouts.md).
        output: the dataset's folder, which must not exist yet; an interrupted preparation resumes.
        scratch: a folder on a disk for temporary copies, if one of the two is in a bucket.
        settings: fields of `PreparationSettings`, such as `size=256` (pixels a side).

    Returns the manifest: `size` in pixels, `count("pairs", "train")`, `digest`, `temperatures` in
    degrees Celsius. Raises DatasetError if the recording cannot be used.
    """
    chosen = PreparationSettings(**settings)
    folder = Path(scratch) if scratch else None
    return stage(
        Location.of(source), Location.of(output), folder, partial(run_preparation, settings=chosen)
    )
