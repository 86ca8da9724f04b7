"""Splits by recording, for whatever recordings there are."""

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thermal_search.errors import DatasetError
from thermal_search.preparation.layouts import Frame
from thermal_search.preparation.splits import parse_shares, split, subsample

SOME = Path("x")


def frames_of(recordings, split=None, kind="pairs"):
    return [
        Frame(
            SOME if kind != "thermal" else None,
            SOME if kind != "rgb" else None,
            name,
            f"{n:04d}",
            split=split,
        )
        for name, count in recordings.items()
        for n in range(count)
    ]


counts = st.dictionaries(st.text("abcd", min_size=1, max_size=3), st.integers(1, 40), max_size=8)
shares = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)).map(
    lambda parts: parse_shares(",".join(map(str, parts)))
)


@settings(deadline=None, derandomize=True)
@given(counts, counts, counts, counts, shares, st.integers(0, 2**31))
def test_no_recording_is_in_two_splits_and_no_frame_is_lost(free, train, val, alone, parts, seed):
    frames = (
        frames_of({f"free-{name}": n for name, n in free.items()})
        + frames_of({f"train-{name}": n for name, n in train.items()}, "train")
        + frames_of({f"val-{name}": n for name, n in val.items()}, "val")
        + frames_of({f"free-{name}": n for name, n in alone.items()}, None, "rgb")
    )
    # What one recording is cut into must leave two pairs to train on and two to validate on.
    if len(free) + len(train) == 1 and not val and sum((free | train).values()) < 4:
        with pytest.raises(DatasetError, match="needs at least 4 pairs to be split, but has"):
            split(frames, parts, seed)
        return
    placed, _ = split(frames, parts, seed)
    places = defaultdict(set)
    for frame in placed:
        places[frame.recording].add(frame.split)

    assert all(len(splits) == 1 for splits in places.values())
    assert len(placed) == len(frames)
    if free or train:
        assert {"train", "val"} <= {frame.split for frame in placed if frame.kind == "pairs"}
    # What the authors held back is never trained on.
    assert all(f.split == "val" for f in placed if f.recording.startswith("val-"))
    assert split(frames[::-1], parts, seed)[0] == placed


@settings(deadline=None)
@given(st.integers(3, 60), shares, st.integers(0, 99))
def test_equal_recordings_are_dealt_in_the_shares_asked_for(count, parts, seed):
    frames = frames_of({f"r{n:02}": 5 for n in range(count)})
    placed, _ = split(frames, parts, seed)

    for part, share in parts.items():
        got = sum(frame.split == part for frame in placed) / len(placed)
        assert abs(got - share) <= 1.5 / count + (share > 0) / count


def test_the_seed_decides_which_recordings_and_nothing_else():
    frames = frames_of({f"r{n}": 10 for n in range(20)})
    held = {
        frozenset(f.recording for f in split(frames, seed=seed)[0] if f.split == "test")
        for seed in (0, 0, 1, 2)
    }

    assert len(held) == 3
    assert {len(recordings) for recordings in held} == {3}


def test_a_part_the_authors_did_not_make_comes_from_their_train_recordings():
    frames = frames_of({f"a{n}": 10 for n in range(10)}, "train")
    frames += frames_of({f"b{n}": 10 for n in range(3)}, "test")
    placed, notes = split(frames)
    splits = {frame.recording: frame.split for frame in placed}

    assert {splits[f"b{n}"] for n in range(3)} == {"test"}
    assert list(splits.values()).count("val") == 2
    assert "no val split" in notes[0]


def test_frames_without_a_partner_follow_their_recording_and_its_cut():
    frames = frames_of({"one": 40}) + frames_of({"one": 40}, None, "rgb")
    placed, _ = split(frames)
    by_name = defaultdict(set)
    for frame in placed:
        by_name[frame.name].add(frame.split)

    assert all(len(splits) == 1 for splits in by_name.values())


def test_every_kth_frame_of_each_recording_is_kept():
    kept = subsample(frames_of({"a": 10, "b": 4}) + frames_of({"a": 7}, None, "thermal"), 3)

    assert [(f.kind, f.recording, int(f.name)) for f in kept] == [
        *(("pairs", "a", n) for n in (0, 3, 6, 9)),
        *(("pairs", "b", n) for n in (0, 3)),
        *(("thermal", "a", n) for n in (0, 3, 6)),
    ]


@pytest.mark.parametrize("told", ["70,30", "70,0,30", "-1,1,1", "a,b,c", "inf,1,1", "nan,1,1"])
def test_shares_that_are_none_are_refused(told):
    with pytest.raises(DatasetError, match="--splits must be three numbers"):
        parse_shares(told)


def test_thinning_to_nothing_is_refused():
    with pytest.raises(DatasetError, match="--every must be 1 or more"):
        subsample([], 0)
