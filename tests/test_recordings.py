"""Recordings and the order of time, recognized by the names of files."""

from datetime import datetime, timedelta
from hashlib import md5

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_search.preparation.layouts.recordings import natural_key, recognize
from thermal_search.preparation.near_duplicates import find_near_duplicates, thumbnail

LETTERS = str.maketrans("0123456789", "abcdefghij")
START = datetime(2024, 5, 1, 10, 59, 55)

DRIVE = {
    "nanoseconds": lambda i: f"{1583949020_000000000 + i * 100_003_211}",
    "milliseconds": lambda i: f"{1583949020000 + i * 100}",
    "seconds and fraction": lambda i: f"{1583949020 + i // 10}_{i % 10 * 100000:06d}",
    "date": lambda i: (START + i * timedelta(seconds=0.1)).strftime("%Y%m%d_%H%M%S_%f")[:-3],
    "ISO date": lambda i: (START + i * timedelta(seconds=0.1)).strftime("%Y-%m-%dT%H-%M-%S.%f"),
    "seconds of a date": lambda i: (START + i * timedelta(seconds=1)).strftime("IMG_%Y%m%d_%H%M%S"),
    "time of day": lambda i: (START + i * timedelta(seconds=0.1)).strftime("%H-%M-%S-%f"),
    "float": lambda i: f"{1583949020 + i * 0.1:.3f}",
    "number": lambda i: f"frame{i}",
    "number with leading zeros": lambda i: f"FLIR_{i:05d}_PreviewData",
    "number and hash": lambda i: f"video-BzZ9-frame-{i:06d}-{'Ab3dEf7Q'[i % 8]}x{i * 7919 % 997}Z",
    "hexadecimal hash": lambda i: f"frame_{i:04d}_{md5(str(i).encode()).hexdigest()[:8]}",
    "hash of letters": lambda i: f"frame_{i:04d}_{str(i * 7919).translate(LETTERS)}",
    "two numbers": lambda i: f"cam2_{i}_v1",
    "day and night": lambda i: f"{i:05d}{'DN'[i % 2]}",
}  # fmt: skip


@pytest.mark.parametrize("kind", DRIVE)
def test_names_of_one_drive_are_one_recording_in_the_order_of_time(kind):
    names = [DRIVE[kind](i) for i in range(120)]
    found = recognize(sorted(names, reverse=True))

    assert set(found.recording.values()) == {names[0]}
    assert sorted(names, key=lambda name: found.position[name]) == names


@pytest.mark.parametrize("kind", DRIVE)
def test_pause_or_gap_begins_another_recording(kind):
    numbers = [*range(30), *range(1000, 1030)]
    found = recognize(DRIVE[kind](i) for i in numbers)

    assert set(found.recording.values()) == {DRIVE[kind](0), DRIVE[kind](1000)}


def test_earlier_numbers_and_words_of_a_name_separate_recordings():
    names = [f"set{s}_{w}_{i}" for s in (1, 2) for w in ("day", "night") for i in range(5)]

    assert len(set(recognize(names).recording.values())) == 4


def test_names_without_numbers_are_one_recording_of_unknown_order():
    found = recognize(["kitchen", "garden", "street", "office"])

    assert len(set(found.recording.values())) == 1
    assert "order in time is unknown" in next(iter(found.bases))


@given(st.lists(st.text("ab01239-_. \n٣", max_size=12), unique=True, max_size=12))
def test_every_name_has_a_recording_and_a_rank(names):
    found = recognize(names)

    assert set(found.recording) == set(found.position) == set(names)
    assert sorted(found.position.values()) == list(range(len(names)))
    assert set(found.recording.values()) <= set(names)


def test_numbers_sort_by_their_value():
    assert sorted(["a10", "a9", "a", "10", "9"], key=natural_key) == ["9", "10", "a", "a9", "a10"]


def test_evaluated_pair_that_looks_like_a_training_pair_is_found():
    random = np.random.default_rng(0)
    scene = random.integers(0, 256, (4, 8, 80), np.uint8).repeat(8, axis=1)

    def pair(start):
        rgb = np.ascontiguousarray(scene[:3, :, start : start + 64].repeat(2, axis=2))
        thermal = np.ascontiguousarray(scene[3, :, start : start + 64].repeat(2, axis=1))
        return thumbnail(rgb, thermal)

    flat = thumbnail(np.full((3, 64, 64), 9, np.uint8), np.full((64, 64), 9, np.uint8))
    training = [("first", pair(0)), ("flat", flat)]
    found = find_near_duplicates(training, [("far", pair(16)), ("same", pair(0)), ("dark", flat)])

    assert (found.count, found.evaluated, found.first) == (1, 3, ("same", "first"))
