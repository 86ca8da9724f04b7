"""A prepared dataset in words, for the terminal."""

from collections import Counter

from thermal_search.data.manifest import AlignmentReport, Manifest
from thermal_search.errors import printable

MAX_FILES = 5
MAX_RECORDINGS = 10


def describe(manifest: Manifest, folder: str) -> str:
    """What the dataset holds, what was left out, and the next command."""
    lines = [f"{folder}: {manifest.size} x {manifest.size} pixels, {manifest.layout}"]
    for kind, splits in manifest.counts().items():
        if any(splits.values()):
            counts = ", ".join(f"{count} {split}" for split, count in splits.items())
            lines.append(f"  {kind:8} {counts}")
    if temperatures := manifest.temperatures:
        lines.append(
            f"  thermal  from {temperatures.low:g} to {temperatures.high:g} degrees Celsius"
        )
    lines += _describe_alignment(manifest.alignment)
    if manifest.unusable_files:
        lines.append(f"  unusable {len(manifest.unusable_files)}:")
        for reason, count in Counter(file.reason for file in manifest.unusable_files).most_common():
            files = [file.file for file in manifest.unusable_files if file.reason == reason]
            named = ", ".join(files[:MAX_FILES]) + (", ..." if count > MAX_FILES else "")
            lines.append(f"    {count} {reason}: {named}")
    if rejected := manifest.rejected_pairs:
        lines.append(
            f"  rejected {len(rejected)} recovered pairs, whose frames stay without a partner:"
        )
        for reason, count in Counter(pair.reason for pair in rejected).most_common():
            lines.append(f"    {count} {reason}")
    lines += [f"  note: {note}" for note in manifest.notes]
    lines.append(f"Check {folder}/preview.png, then search:")
    lines.append(f"  thermal-search search --data {folder} --output SEARCH")
    return "\n".join(map(printable, lines))


def _describe_alignment(alignment: AlignmentReport) -> list[str]:
    """The remaining error by recording, the largest first."""
    measured = [
        (entry.remaining_error_px, entry.median_deviation_px or 0.0, name)
        for name, entry in alignment.recordings.items()
        if entry.remaining_error_px is not None
    ]
    lines: list[str] = []
    if measured:
        lines.append("  distance of thermal from RGB in pixels (and of single frames from that):")
    worst = sorted(measured, key=lambda item: -item[0])
    for error, deviation, name in worst[:MAX_RECORDINGS]:
        lines.append(f"    {error:6.2f} ({deviation:.2f}) {name}")
    if len(worst) > MAX_RECORDINGS:
        lines.append(f"    ... and {len(worst) - MAX_RECORDINGS} more, in manifest.json")
    if unmeasured := len(alignment.recordings) - len(measured):
        lines.append(f"    not measured, because too few edges match: {unmeasured} recordings")
    return lines
