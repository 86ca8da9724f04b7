"""Splits by recording, for any recordings."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_search.errors import DatasetError, SettingsError
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.preparation.splits import assign_splits, subsample

FILE = Path("x")
DEFAULT = PreparationSettings().split_fractions


def frames_of(recordings, split=None, kind="pairs"):
    return [
        SourceFrame(
            FILE if kind != "thermal" else None,
            FILE if kind != "rgb" else None,
            name,
            f"{n:04d}",
            split=split,
        )
        for name, count in recordings.items()
        for n in range(count)
    ]


counts = st.dictionaries(st.text("abcd", min_size=1, max_size=3), st.integers(1, 40), max_size=8)
fractions = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)).map(
    lambda weights: PreparationSettings(splits=weights).split_fractions
)


@settings(deadline=None, derandomize=True)
@given(counts, counts, counts, counts, fractions, st.integers(0, 2**31))
def test_no_recording_is_in_two_splits_and_no_frame_is_lost(
    free, train, val, unpaired, wanted, seed
):
    frames = (
        frames_of({f"free-{name}": n for name, n in free.items()})
        + frames_of({f"train-{name}": n for name, n in train.items()}, "train")
        + frames_of({f"val-{name}": n for name, n in val.items()}, "val")
        + frames_of({f"free-{name}": n for name, n in unpaired.items()}, None, "rgb")
    )
    # A single recording is cut so that two pairs are left to train on and two to validate on.
    if len(free) + len(train) == 1 and not val and sum((free | train).values()) < 4:
        with pytest.raises(DatasetError, match="needs at least 4 pairs to be split, but has"):
            assign_splits(frames, wanted, seed)
        return
    assigned, _ = assign_splits(frames, wanted, seed)
    splits_of = defaultdict(set)
    for frame in assigned:
        splits_of[frame.recording].add(frame.split)

    assert all(len(splits) == 1 for splits in splits_of.values())
    # Where a single recording is cut, frames are left out.
    is_cut = sum(recording.endswith("/train") for recording in splits_of)
    assert len(assigned) == len(frames) or is_cut
    if free or train:
        assert {"train", "val"} <= {frame.split for frame in assigned if frame.kind == "pairs"}
    # What the authors held out is never trained on.
    assert all(f.split == "val" for f in assigned if f.recording.startswith("val-"))
    assert assign_splits(frames[::-1], wanted, seed)[0] == assigned


@settings(deadline=None)
@given(st.integers(3, 60), fractions, st.integers(0, 99))
def test_equal_recordings_are_assigned_in_the_wanted_fractions(count, wanted, seed):
    frames = frames_of({f"r{n:02}": 5 for n in range(count)})
    assigned, _ = assign_splits(frames, wanted, seed)

    for split, fraction in wanted.items():
        actual = sum(frame.split == split for frame in assigned) / len(assigned)
        assert abs(actual - fraction) <= 1.5 / count + (fraction > 0) / count


def test_the_seed_decides_which_recordings_and_nothing_else():
    frames = frames_of({f"r{n}": 10 for n in range(20)})
    held = {
        frozenset(f.recording for f in assign_splits(frames, DEFAULT, seed)[0] if f.split == "test")
        for seed in (0, 0, 1, 2)
    }

    assert len(held) == 3
    assert {len(recordings) for recordings in held} == {3}


def test_missing_official_split_is_taken_from_official_train_recordings():
    frames = frames_of({f"a{n}": 10 for n in range(10)}, "train")
    frames += frames_of({f"b{n}": 10 for n in range(3)}, "test")
    assigned, notes = assign_splits(frames, DEFAULT)
    splits = {frame.recording: frame.split for frame in assigned}

    assert {splits[f"b{n}"] for n in range(3)} == {"test"}
    assert list(splits.values()).count("val") == 2
    assert "no val split" in notes[0]


def test_frames_without_a_partner_follow_their_recording_and_its_cut():
    frames = frames_of({"one": 40}) + frames_of({"one": 40}, None, "rgb")
    assigned, _ = assign_splits(frames, DEFAULT)
    by_name = defaultdict(set)
    for frame in assigned:
        by_name[frame.name].add(frame.split)

    assert all(len(splits) == 1 for splits in by_name.values())


@pytest.mark.parametrize("count", [20, 60, 5000])
def test_no_frame_next_to_a_training_frame_is_evaluated_on(count):
    assigned, notes = assign_splits(frames_of({"one": count}), DEFAULT)
    splits = {int(frame.name): frame.split for frame in assigned}

    for number, split in splits.items():
        neighbors = {splits.get(number - 1), splits.get(number + 1)} - {None}
        assert neighbors == {split}
    assert 0.85 * count <= len(assigned) < count
    assert "pairs were left out at each cut" in notes[0]


def test_every_nth_frame_of_each_recording_is_kept():
    sampled = subsample(frames_of({"a": 10, "b": 4}) + frames_of({"a": 7}, None, "thermal"), 3)

    assert [(f.kind, f.recording, int(f.name)) for f in sampled] == [
        *(("pairs", "a", n) for n in (0, 3, 6, 9)),
        *(("pairs", "b", n) for n in (0, 3)),
        *(("thermal", "a", n) for n in (0, 3, 6)),
    ]


@pytest.mark.parametrize("weights", ["70,30", "70,0,30", "-1,1,1", "1,2,3,4"])
def test_invalid_weights_are_refused(weights):
    with pytest.raises(SettingsError, match="--splits must be three numbers"):
        PreparationSettings(splits=weights)


@pytest.mark.parametrize("weights", ["a,b,c", "inf,1,1", "nan,1,1"])
def test_weights_that_are_not_numbers_are_refused(weights):
    with pytest.raises(SettingsError, match="--splits must be"):
        PreparationSettings(splits=weights)


def test_subsampling_to_nothing_is_refused():
    with pytest.raises(SettingsError, match="--every-nth must be at least 1"):
        PreparationSettings(every_nth=0)
