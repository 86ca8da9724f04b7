"""Translates RGB images or a video with an exported generator."""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thermal_search import generator
from thermal_search.architectures.translator import Translator
from thermal_search.errors import DatasetError
from thermal_search.storage import Location
from thermal_search.translation import video
from thermal_search.translation.marks import digest_of_run, existing_digests
from thermal_search.translation.processes import (
    default_workers,
    device_of,
    translate_in_processes,
)
from thermal_search.translation.rendering import colors
from thermal_search.translation.settings import TranslationSettings
from thermal_search.translation.sources import Job, find_sources, is_video
from thermal_search.translation.worker import Outcome, Request, Worker, check_model

Advance = Callable[[int, int], None]
"""Called with what is done, and with how much there is to do (0: unknown)."""


@dataclass
class Translation:
    """What became of the images of an input."""

    written: list[Location] = field(default_factory=list[Location])
    """The thermal images, or the video."""

    kept: list[Location] = field(default_factory=list[Location])
    """Those that an earlier run of the same generator, settings and images has written."""

    left_out: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Images that cannot be read, by their names below the input, each with the reason."""

    frames: int = 0
    """Frames of the video that were written."""


def translate(
    model: Location | Path,
    source: Location | Path,
    output: Location | Path,
    settings: TranslationSettings | None = None,
) -> Translation:
    """Writes the thermal image of every RGB image in `source` to `output`.

    `source` is an image, a folder with its subfolders, a pattern such as `photos/*.jpg`, or a
    video, on a disk or in a bucket. `output` is a folder, in which images keep their subfolders and
    names and become PNG; for one image or video it may be the file.

    Files that an earlier call has written of the same images, with the same generator and
    settings, are kept; those of other translations are replaced, and anybody else's are refused.
    Images that cannot be read are left out and listed in the result.

    Raises SettingsError for settings that exclude each other, SearchError for an unusable
    generator, and DatasetError for an unusable input or output.
    """
    settings = settings or TranslationSettings()
    settings.check()
    if settings.colormap is not None:
        colors(settings.colormap)  # raises SettingsError if there is none of this name
    model, source, output = (Location.of(place) for place in (model, source, output))
    if settings.address:  # other machines, with other current folders
        model, source, output = (place.absolute() for place in (model, source, output))
    # First what is quick to find out, so that nothing is read or written in vain.
    translator = generator.load(model)
    _check_overlap(settings, translator.config.size)
    run = digest_of_run(model, settings)
    request = Request(model, settings, run)
    check_model(request, generator.load_config(model).temperatures, translator.size_multiple)
    if is_video(source) and source.is_file():
        return _translate_video(request, source, output, translator)
    sources = find_sources(source, output)
    existing = existing_digests([job.target for job in sources.jobs])
    jobs = [replace(job, existing=existing.get(job.target, "")) for job in sources.jobs]
    result = Translation(left_out=sources.left_out)
    with _progress() as advance:
        for number, outcome in enumerate(_outcomes(request, jobs, translator), start=1):
            if outcome.reason:
                result.left_out.append((outcome.name, outcome.reason))
            else:
                (result.kept if outcome.kept else result.written).append(outcome.target)
            advance(number, len(jobs))
    for locations in (result.written, result.kept):
        locations.sort(key=str)  # several workers end in any order
    if not result.written and not result.kept:
        name, reason = result.left_out[-1]
        raise DatasetError(
            f"{source} must hold readable images, but none of its {len(jobs)} can be read "
            f"({name}: {reason}): repair or replace them."
        )
    return result


def _check_overlap(settings: TranslationSettings, size: int) -> None:
    if settings.overlap is not None and settings.overlap > size // 2:
        raise DatasetError(
            f"--overlap must be at most {size // 2}, half a tile of this generator, but is "
            f"{settings.overlap}."
        )


def _outcomes(request: Request, jobs: Sequence[Job], translator: Translator) -> Iterator[Outcome]:
    settings = request.settings
    if settings.address:
        # Imported here: Ray takes seconds, and is not needed on one machine.
        from thermal_search.translation.cluster import translate_on_cluster

        return translate_on_cluster(request, jobs, settings.address, settings.workers)
    workers = min(settings.workers or default_workers(), len(jobs))
    if workers == 1:
        return Worker(request, device_of(0), translator=translator).translate_images(jobs)
    return translate_in_processes(request, jobs, workers)


def _translate_video(
    request: Request, source: Location, output: Location, translator: Translator
) -> Translation:
    video.check_settings(request.settings)
    target = video.target_of(source, output)
    with _progress() as advance:
        result = video.translate_video(
            lambda: Worker(request, device_of(0), translator=translator),
            request.run,
            source,
            target,
            advance,
        )
    left_out = [(source.name, result.warning)] if result.warning else []
    if not result.frames:
        return Translation(kept=[target], left_out=left_out)
    return Translation(written=[target], left_out=left_out, frames=result.frames)


@contextlib.contextmanager
def _progress() -> Generator[Advance]:
    """A bar on stderr with the time that is left; nothing stays of it."""
    columns = (
        TextColumn("Translating"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
