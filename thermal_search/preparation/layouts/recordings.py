"""Recordings, and the order of time in them, recognized by the names of files."""

import calendar
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

GAP_BETWEEN_RECORDINGS = 50
"""Gap between two files' numbers above which they are of two recordings. Of times, in units of the
median interval."""

DATE = re.compile(
    r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])[-_ .T]{0,2}"
    r"([01]\d|2[0-3])[-_.:h]?([0-5]\d)[-_.:m]?([0-5]\d)(?:[-_.,:]?(\d{1,9}))?(?!\d)",
    re.ASCII,
)
CLOCK = re.compile(
    r"(?<!\d)([01]\d|2[0-3])[-_.:h]([0-5]\d)[-_.:m]([0-5]\d)(?:[-_.,:](\d{1,9}))?(?!\d)", re.ASCII
)
EPOCH = re.compile(r"(?<!\d)(1\d{9})(?:[-_.](\d{1,9})|(\d{3}|\d{6}|\d{9}))?(?!\d)", re.ASCII)
"""Seconds since 1970, with a fraction of up to nanoseconds."""

COUNTER = re.compile(r"([A-Za-z]*)(\d+)[A-Za-z]*", re.ASCII)

BY_TIMES = "times in file names (a pause of more than 50 intervals begins another)"
BY_NUMBERS = "file numbers (a gap of more than 50 begins another)"
BY_FOLDERS = "folders, because file names hold no numbers: their order in time is unknown"
BY_AUTHORS = "what the dataset's authors documented"

Key = tuple[str, ...]


@dataclass
class Recordings:
    """The recording of each file of a folder, by its stem."""

    recording: dict[str, str] = field(default_factory=dict[str, str])
    position: dict[str, int] = field(default_factory=dict[str, int])
    """Rank of each stem in the order of recordings and of time."""

    bases: set[str] = field(default_factory=set[str])
    """What the recordings were recognized by, in words."""

    def add(self, other: "Recordings") -> None:
        """Adds the recordings of another folder, which come after these."""
        self.recording |= other.recording
        self.position |= {stem: len(self.position) + n for stem, n in other.position.items()}
        self.bases |= other.bases


def recognize(stems: Iterable[str]) -> Recordings:
    """Files close in number or time are of one recording, a gap begins another."""
    stems = sorted(stems, key=natural_key)
    moments: dict[Key, list[tuple[float, str]]] = defaultdict(list)
    result = Recordings()
    times = _times(stems)
    for stem, (before, seconds) in times.items():
        moments["time", before].append((seconds, stem))
    counted = [stem for stem in stems if stem not in times]
    for key, number, stem in _counters(counted):
        moments["number", *key].append((number, stem))
    for key, members in moments.items():
        members.sort(key=lambda member: (member[0], natural_key(member[1])))
        gap = _largest_gap([number for number, _ in members], is_time=key[0] == "time")
        current = members[0][1]
        for (previous, _), (number, stem) in pairwise([members[0], *members]):
            if number - previous > gap:
                current = stem
            result.recording[stem] = current
            result.position[stem] = len(result.position)
        is_counted = key[0] == "time" or len(members) == 1 or members[0][0] != members[-1][0]
        by_name = BY_TIMES if key[0] == "time" else BY_NUMBERS
        result.bases.add(by_name if is_counted else BY_FOLDERS)
    return result


def natural_key(name: str) -> tuple[str | int, ...]:
    """Sorts names with numbers by the numbers: a2 before a10."""
    parts = re.split(r"(\d+)", name, flags=re.ASCII)
    return tuple(int(part) if index % 2 else part for index, part in enumerate(parts))


def _largest_gap(numbers: Sequence[float], *, is_time: bool) -> float:
    """The largest gap within one recording, between sorted numbers."""
    if not is_time:
        return GAP_BETWEEN_RECORDINGS
    intervals = [b - a for a, b in pairwise(numbers) if b > a]
    return GAP_BETWEEN_RECORDINGS * statistics.median(intervals) if intervals else 0.0


def _times(stems: Sequence[str]) -> dict[str, tuple[str, float]]:
    """The text before the time, and the time in seconds, of each stem that holds one."""
    found: dict[str, tuple[str, int, str]] = {}
    for stem in stems:
        if time := _time(stem):
            found[stem] = time
    digits = {len(fraction) for _, _, fraction in found.values() if fraction}
    # Fractions are padded to one length; others are whole numbers of its smallest unit.
    unit = 10.0 ** -max(digits, default=0)
    return {
        stem: (before, seconds + int(fraction or 0) * unit)
        for stem, (before, seconds, fraction) in found.items()
    }


def _time(stem: str) -> tuple[str, int, str] | None:
    """The text before a time, its whole seconds, and the digits of its fraction."""
    if match := DATE.search(stem):
        try:
            moment = datetime.strptime("".join(match.groups()[:6]), "%Y%m%d%H%M%S")
        except ValueError:
            return None  # February 30
        return stem[: match.start()], calendar.timegm(moment.timetuple()), match[7] or ""
    if match := EPOCH.search(stem):
        return stem[: match.start()], int(match[1]), match[2] or match[3] or ""
    if match := CLOCK.search(stem):
        hours, minutes, seconds = (int(part) for part in match.groups()[:3])
        return stem[: match.start()], 3600 * hours + 60 * minutes + seconds, match[4] or ""
    return None


def _counters(stems: Sequence[str]) -> list[tuple[Key, int, str]]:
    """(key of the recording, number in it, stem): the last number that counts is the frame's.

    A part of the names that is different in nearly every file but does not count is a hash: it
    tells nothing, and is ignored.
    """
    by_start: dict[str, list[str]] = defaultdict(list)
    for stem in stems:
        by_start[re.split(r"\d", stem, maxsplit=1, flags=re.ASCII)[0]].append(stem)
    if len(by_start) > len(stems) / 2:
        by_start = {"": list(stems)}
    return [moment for start, group in by_start.items() for moment in _count(start, group)]


def _count(start: str, stems: Sequence[str]) -> list[tuple[Key, int, str]]:
    rows = [re.split(r"[-_. ]+", stem) for stem in stems]
    keys: list[list[str]] = [[start] for _ in rows]
    numbers = [0] * len(rows)
    has_counter = False
    for column in reversed(range(min(len(row) for row in rows)) if rows else []):
        values = [row[column] for row in rows]
        matches = [COUNTER.fullmatch(value) for value in values]
        is_counter = all(matches) and _is_category([match[1] for match in matches if match])
        distinct = len(set(values))
        if distinct > 1 and is_counter and not has_counter:
            has_counter = True
            for index, match in enumerate(matches):
                assert match
                numbers[index] = int(match[2])
                keys[index].append(match[1])
        elif distinct > 1 and (is_counter or _is_category(values)):
            for key, value in zip(keys, values, strict=True):
                key.append(value)
    return [(tuple(key), n, stem) for key, n, stem in zip(keys, numbers, stems, strict=True)]


def _is_category(values: Sequence[str]) -> bool:
    """Whether values repeat, as those of a class or a camera do, and those of a hash do not."""
    return len(set(values)) <= max(len(values) / 2, 1)
