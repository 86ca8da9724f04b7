"""The command that prepares a dataset: `python process.py` in a checkout, and `thermal-search
prepare` wherever the package is installed."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from thermal_search.command_line import CONFIG, LocationFlag
from thermal_search.errors import SettingsError
from thermal_search.preparation.settings import SOURCE, PreparationSettings

if TYPE_CHECKING:
    from thermal_search.storage import Location

PAIRS = ["--celsius"]
"""The flags of two values."""

INTERRUPTED = "interrupted; the same command resumes the preparation."

DEFAULTS = PreparationSettings()


def prepare(
    source: LocationFlag | None = None,
    output: LocationFlag | None = None,
    /,
    *,
    settings: Annotated[PreparationSettings, Parameter(name="*")] = DEFAULTS,
    scratch: Annotated[Path | None, SOURCE] = None,
    verify: Annotated[LocationFlag | None, SOURCE] = None,
    config: Annotated[Path | None, SOURCE, Parameter(name=CONFIG)] = None,
) -> None:
    """Turn a recording of RGB and thermal images into a dataset to search on.

    The dataset is Parquet shards of raw pixels, with a manifest and a preview.
    The same command resumes an interrupted run.

    Parameters
    ----------
    source
        The recording's folder (docs/layouts.md), or its address in a bucket.
    output
        The dataset's folder, which must not exist yet; may be in a bucket.
    scratch
        A folder on a disk, for temporary copies of files that come from or go to a bucket.
    verify
        Compare this dataset with its manifest instead.
    config
        A YAML file of settings, named like the flags (every_nth: 5); flags override it.
    """
    if verify:
        _verify(verify)
    elif source and output:
        _prepare(source, output, scratch, settings)
    else:
        raise SettingsError("SOURCE and OUTPUT are required, or --verify DATASET: see --help.")


def _prepare(
    source: "Location", output: "Location", scratch: Path | None, settings: PreparationSettings
) -> None:
    # Imported here: torch takes seconds, which `--help` must not.
    from thermal_search.preparation import prepare as preparation
    from thermal_search.preparation.staging import stage
    from thermal_search.preparation.text_summary import describe

    manifest = stage(source, output, scratch, partial(preparation.prepare, settings=settings))
    print(describe(manifest, str(output)))


def _verify(folder: "Location") -> None:
    from thermal_search.data.manifest import read_manifest, verify_checksums
    from thermal_search.preparation.text_summary import describe

    manifest = read_manifest(folder)
    verify_checksums(manifest)
    print(f"{describe(manifest, str(folder))}\nEvery shard has the checksum of its manifest.")
