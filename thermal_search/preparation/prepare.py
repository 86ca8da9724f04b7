"""From a recording to a prepared dataset, which appears complete or not at all.

Everything is written to OUTPUT.partial, which is renamed at the end. A run that was stopped, even
killed, can be resumed: finished shards of the same plan are kept, and the result is the same to the
byte.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thermal_search.data.manifest import (
    AlignmentReport,
    FrameKind,
    Manifest,
    RecordingEntry,
    RejectedPair,
    UnusableFile,
    read_manifest,
)
from thermal_search.errors import DatasetError
from thermal_search.preparation.alignment.contact_sheet import draw_contact_sheet
from thermal_search.preparation.alignment.estimation import (
    MeasuredAlignment,
    align_recordings,
)
from thermal_search.preparation.alignment.geometry import Alignment, parameters_of
from thermal_search.preparation.alignment.modes import alignments_of_mode, complete_alignments
from thermal_search.preparation.layouts import read_layout
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.near_duplicates import find_near_duplicates
from thermal_search.preparation.partial_folder import (
    CONTACT_SHEET,
    PLAN,
    PREVIEW,
    PreparationPlan,
    claim,
    discard,
    remove_leftovers,
)
from thermal_search.preparation.pool import Pool, open_pool
from thermal_search.preparation.preview import draw_preview
from thermal_search.preparation.radiometry import measure_temperatures
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.shards import (
    ShardResult,
    make_shard,
    plan_shards,
    split_rejected_pairs,
)
from thermal_search.preparation.splits import assign_splits, subsample
from thermal_search.preparation.verification import (
    ScoredPair,
    rejected_pairs,
    summarize_agreement,
    suspect_recordings,
)
from thermal_search.storage import Location

SMALL_BYTES = 16 * 2**20
"""Files of less bytes are prepared by this process alone: to start others takes longer."""


@dataclass(frozen=True)
class _Job:
    """What is to be prepared, known before any pixel is read."""

    source: Path
    settings: PreparationSettings
    layout: str
    """As recognized."""

    frames: Sequence[SourceFrame]
    """With their splits."""

    unusable_files: Sequence[UnusableFile]
    notes: Sequence[str]
    known_alignments: Mapping[str, Alignment] | None
    """By recording, `*` for every other one; None: to be estimated."""


@dataclass(frozen=True)
class _Alignments:
    by_recording: Mapping[str, Alignment] = field(default_factory=dict[str, Alignment])
    """Empty if pairs are not to be aligned."""

    measured: Sequence[MeasuredAlignment] = ()
    notes: Sequence[str] = ()


def prepare(source: Path, output: Path, settings: PreparationSettings) -> Manifest:
    """Writes the dataset and returns its manifest; DatasetError if that is impossible.

    An output that is the finished dataset of the same plan is left as it is.
    """
    # Workers may have another current folder.
    source, output = source.absolute(), output.absolute()
    if output.resolve().is_relative_to(source.resolve()):
        raise DatasetError(
            f"{output} must not be in the recording {source}: choose another folder."
        )
    job = _read_source(source, settings)
    plan = _plan(job)
    if output.exists():
        return _finished_dataset(output, plan)
    folder = output.with_name(f"{output.name}.partial")
    try:
        with claim(folder, plan):
            if output.exists():  # another run has finished it meanwhile
                discard(folder)
                return _finished_dataset(output, plan)
            workers = settings.workers or (1 if _is_small(job.frames) else None)
            with open_pool(workers, settings.address) as pool:
                alignments = _align(job, folder, pool)
                results = _make_shards(job, alignments.by_recording, folder, pool)
            manifest = _describe(job, alignments, results, folder)
            manifest.save()
            read_manifest(folder)  # refuses what a search would refuse
            draw_preview(manifest, folder / PREVIEW)
            remove_leftovers(folder, manifest.shards)
            folder.rename(output)
    except OSError as error:
        raise DatasetError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}): free some "
            "space, or fix it; the same command resumes the preparation."
        ) from None
    return read_manifest(output)


def _read_source(source: Path, settings: PreparationSettings) -> _Job:
    known = alignments_of_mode(settings)
    layout, contents = read_layout(
        source,
        settings.layout,
        official_only=settings.official_only,
        follow_links=settings.follow_links,
    )
    frames, notes = assign_splits(
        subsample(contents.frames, settings.every_nth), settings.split_fractions, settings.seed
    )
    return _Job(
        source=source,
        settings=settings,
        layout=layout,
        frames=frames,
        unusable_files=[UnusableFile(file=f, reason=r) for f, r in contents.unusable_files],
        notes=[*contents.notes, *notes],
        known_alignments=known,
    )


def _plan(job: _Job) -> PreparationPlan:
    known = job.known_alignments or {}
    return PreparationPlan(
        layout=job.layout,
        settings=job.settings.recorded(),
        alignments={name: parameters_of(alignment) for name, alignment in known.items()},
        frames=_fingerprint(job.frames),
    )


def _is_small(frames: Sequence[SourceFrame]) -> bool:
    """Whether one process is done with the files before others have imported torch."""
    paths = {path for frame in frames for path in (frame.rgb, frame.thermal) if path}
    return sum(path.stat().st_size for path in paths) < SMALL_BYTES


def _fingerprint(frames: Sequence[SourceFrame]) -> str:
    hashed = hashlib.sha256()
    for frame in frames:
        for path in (frame.rgb, frame.thermal, frame.radiometric):
            if path:
                status = path.stat()
                text = f"{path.name} {status.st_size} {status.st_mtime_ns} {frame.recording}"
                text += f" {frame.split} {frame.pairing} {frame.rgb_side}"
                hashed.update(text.encode())
    return hashed.hexdigest()


def _finished_dataset(output: Path, plan: PreparationPlan) -> Manifest:
    if not plan.is_in(output / PLAN):
        raise DatasetError(
            f"{output} exists and is not this dataset with these settings: choose another folder, "
            "or delete it first."
        )
    return read_manifest(output)


def _align(job: _Job, folder: Path, pool: Pool) -> _Alignments:
    settings = job.settings
    if settings.align == "none" and not settings.preview:
        return _Alignments()
    total = len({frame.recording for frame in job.frames if frame.kind == "pairs"})
    with _progress() as progress:
        measuring = align_recordings(job.frames, job.known_alignments, settings.size, pool)
        measured = list(progress.track(measuring, total, description="Aligning"))
    complete, notes = complete_alignments(measured, settings.align)
    if settings.preview:
        draw_contact_sheet(job.frames, complete, folder / CONTACT_SHEET)
    return _Alignments({} if settings.align == "none" else complete, measured, notes)


def _make_shards(
    job: _Job, alignments: Mapping[str, Alignment], folder: Path, pool: Pool
) -> list[ShardResult]:
    make = partial(
        make_shard,
        folder=folder,
        source=job.source,
        settings=job.settings,
    )
    results: list[ShardResult] = []
    with _progress() as progress:
        task = progress.add_task("Resizing", total=len(job.frames))
        for result in pool.map(make, plan_shards(job.frames, job.settings, alignments)):
            results.append(result)
            progress.advance(task, result.rows + len(result.unusable_files))
    return results


def _describe(
    job: _Job, alignments: _Alignments, results: Sequence[ShardResult], folder: Path
) -> Manifest:
    """Takes out the rejected pairs, and describes the dataset. Raises DatasetError."""
    settings = job.settings
    unusable = [
        *job.unusable_files,
        *(file for result in results for file in result.unusable_files),
    ]
    _check_unusable(job, unusable)
    rejected = rejected_pairs(_scores(results))
    results = split_rejected_pairs(
        results, {(pair.recording, pair.name) for pair in rejected}, folder
    )
    _require_validation_pairs(job, results, rejected)
    notes = [*job.notes, *alignments.notes, *_note_near_duplicates(results)]
    if suspects := suspect_recordings(_scores(results)):
        notes.append(
            f"In {len(suspects)} recordings the edges of RGB and thermal agree no better than in "
            f"wrong pairs (first: {suspects[0]}): check them."
        )
    return Manifest(
        source=job.source.resolve().name,
        layout=job.layout,
        size=settings.size,
        filter=settings.filter,
        temperatures=(
            measure_temperatures(settings, folder, results) if settings.thermal == "16bit" else None
        ),
        alignment=AlignmentReport(
            mode=settings.align,
            recordings={item.recording: item.entry() for item in alignments.measured},
        ),
        recordings=_recordings(results),
        unusable_files=unusable,
        rejected_pairs=rejected,
        notes=notes,
        shards=[result.shard for result in results if result.rows],
    ).at(Location.of(folder))


def _note_near_duplicates(results: Sequence[ShardResult]) -> list[str]:
    """How many evaluated pairs look like a training pair, if there are any to compare."""
    training, evaluated = (
        [
            (score.name, score.thumbnail)
            for result in results
            if result.kind == "pairs" and (result.split == "train") == is_training
            for score in result.scores
        ]
        for is_training in (True, False)
    )
    if not training:
        return []
    found = find_near_duplicates(training, evaluated)
    note = f"{found.count} of {found.evaluated} val and test pairs look like a training pair"
    if not found.first:
        return [f"{note}."]
    return [
        f"{note} (first: {found.first[0]}, like {found.first[1]}): scores will be too good. Check "
        "how recordings were recognized, and use more recordings."
    ]


def _check_unusable(job: _Job, unusable: Sequence[UnusableFile]) -> None:
    limit = job.settings.max_unusable
    total = len(job.frames) + len(job.unusable_files)
    if len(unusable) > limit * total:
        reasons = Counter(file.reason.split(" (")[0].split(":")[0] for file in unusable)
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        first = unusable[0]
        raise DatasetError(
            f"{job.source}: {len(unusable)} of {total} frames cannot be used ({counts}; first: "
            f"{first.file}, {first.reason}), more than the {limit:.0%} allowed: fix them, or pass "
            "a larger --max-unusable."
        )


def _require_validation_pairs(
    job: _Job, results: Sequence[ShardResult], rejected: Sequence[RejectedPair]
) -> None:
    has_pairs = any(r.rows and (r.kind, r.split) == ("pairs", "val") for r in results)
    if rejected and not has_pairs:
        raise DatasetError(
            f"{job.source}: no pair that was recovered for its val split shows one scene: pass "
            "--official-only, which assigns the official pairs to the splits instead."
        )


def _scores(results: Sequence[ShardResult]) -> list[ScoredPair]:
    return [score for result in results for score in result.scores]


def _recordings(results: Sequence[ShardResult]) -> dict[str, RecordingEntry]:
    frames: Counter[tuple[str, FrameKind]] = Counter()
    entries: dict[str, RecordingEntry] = {}
    agreement = summarize_agreement(_scores(results))
    for result in results:
        for name, count in sorted(result.recordings.items()):
            frames[name, result.kind] += count
            summary = agreement[name] if result.kind == "pairs" else None
            entries[f"{name} ({result.kind})"] = RecordingEntry(
                split=result.split,
                frames=frames[name, result.kind],
                pairing=summary and summary.pairing,
                agreement=summary and dict(summary.quantiles),
            )
    return entries


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
    )
