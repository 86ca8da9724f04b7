"""What --objective means: sums, directions, Pareto fronts; and a trial's objective."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_search.errors import SearchError
from thermal_search.tuning.objective import pareto_front, parse_objective

VALUES = {"fid": 50.0, "kid": 0.02, "l1": 12.0, "lpips": 0.4, "psnr": 20.0, "ssim": 0.5}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("fid", "fid", 50.0),
        ("kid", "kid", 0.02),
        ("fid+10*lpips", "fid+10*lpips", 54.0),
        (" fid + 0.5*l1 ", "fid+0.5*l1", 56.0),
        ("fid+2*psnr", "fid-2*psnr", 10.0),
        ("ssim", "-ssim", -0.5),
    ],
)
def test_sum_is_minimized_and_psnr_and_ssim_are_subtracted(text, name, value):
    objective = parse_objective(text, "inception")

    assert not objective.has_two_objectives
    assert objective.by_axis(objective.values(VALUES)) == {name: pytest.approx(value)}


def test_keys_of_fid_and_kid_name_the_features():
    objective = parse_objective("fid+100*kid", "efficientnet-lite0")

    assert objective.keys == {"fd_efficientnet_lite0", "kid_efficientnet_lite0"}
    assert parse_objective("fd_efficientnet_lite0", "efficientnet-lite0").axes == (
        parse_objective("fid", "efficientnet-lite0").axes
    )


def test_pareto_objective_has_two_axes():
    objective = parse_objective("pareto:fid,l1", "inception")

    assert objective.has_two_objectives
    assert objective.values(VALUES) == [50.0, 12.0]
    assert objective.by_axis([50.0, 12.0]) == {"fid": 50.0, "l1": 12.0}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is not a term"),
        ("fid+", "'' is not a term"),
        ("fid*2", r"'fid\*2' is not a term"),
        ("fid-10*ssim", "psnr and ssim.* are subtracted"),
        ("1e3*fid", "a positive weight"),
        ("nan*fid", "is not a term"),
        ("0*fid", "weight of fid must be above 0"),
        ("fid+fid", "must name fid once"),
        ("fod", "unknown metric 'fod': did you mean fid"),
        ("entropy", "unknown metric 'entropy': known are fid, kid, l1, lpips, psnr, ssim"),
        ("fd_efficientnet_lite0", "unknown metric 'fd_efficientnet_lite0'"),
        ("pareto:fid", "must name two different metrics"),
        ("pareto:fid,fid", "must name two different metrics"),
        ("pareto:fid,l1,ssim", "must name two different metrics"),
        ("pareto:fid,", "'' is not a term"),
        ("__import__('os')", "is not a term"),
    ],
)
def test_invalid_objective_is_one_sentence(text, sentence):
    with pytest.raises(SearchError, match=sentence) as raised:
        parse_objective(text, "inception")

    assert "\n" not in str(raised.value)


def test_objective_is_the_mean_of_the_last_evaluations():
    objective = parse_objective("fid", "inception")
    history = [{"fid": value} for value in (90.0, 10.0, 40.0, 50.0)]

    assert objective.mean_of_last(history, 2) == [45.0]
    assert objective.mean_of_last(history[:1], 2) == [90.0]
    assert objective.mean_of_last([], 2) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_front_is_exactly_what_nothing_dominates(points):
    named = {str(number): [float(x), float(y)] for number, (x, y) in enumerate(points)}
    front = pareto_front(named)

    def is_dominated(point):
        return any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)

    assert set(front) == {str(n) for n, point in enumerate(points) if not is_dominated(point)}
    assert [named[name][0] for name in front] == sorted(named[name][0] for name in front)
