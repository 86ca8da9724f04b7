"""What the demo says of its best generator, and that its settings can be searched. No Ray."""

import pytest
from summaries import record_of, run_trial

from thermal_search.demo import tour
from thermal_search.tuning.space import load_spaces
from thermal_search.tuning.space_flags import parse_fixed

BASELINES = {
    "inverted_grey": {"fid": 90.0, "l1": 100.0},
    "mean_thermal": {"fid": 290.0, "l1": 20.0},
    "ridge": {"fid": 250.0, "l1": 14.0},
}


@pytest.mark.parametrize(("l1", "is_good"), [(9.0, True), (12.0, False)])
def test_last_lines_say_what_is_good_and_what_is_not(tmp_path, l1, is_good):
    record = record_of(tmp_path)
    run_trial(record, {"fid": 120.0, "l1": l1}, baselines=BASELINES)
    title, *lines = tour.assess(record)
    (error,) = (line for line in lines if "of 255 gray levels off" in line)

    assert "pix2pix 00000" in title
    assert error.startswith("  Good: " if is_good else "  Not good: ")
    assert f"{l1} of 255" in error
    assert "20.0" in error
    assert "  Good: It beats inverted grey in L1." in lines
    assert "  Not good: It does not beat inverted grey in distance." in lines
    assert "  Good: It beats mean thermal in distance, L1." in lines


def test_fixed_parameters_of_the_demo_are_in_its_search_spaces():
    fixed = parse_fixed(tour.FIXED, load_spaces(tour.ARCHITECTURES))

    assert set(fixed) == set(tour.ARCHITECTURES)
