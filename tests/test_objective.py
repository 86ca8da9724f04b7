"""What --objective means: sums, directions, fronts; and what a trial is worth by it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_search.errors import SearchError
from thermal_search.tuning.objective import front, parse_objective

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
def test_a_sum_is_minimised_and_more_of_psnr_and_ssim_is_better(text, name, value):
    objective = parse_objective(text, "inception")

    assert not objective.has_two_objectives
    assert objective.named(objective.values(VALUES)) == {name: pytest.approx(value)}


def test_fid_and_kid_are_asked_of_other_features_under_their_honest_keys():
    objective = parse_objective("fid+100*kid", "efficientnet-lite0")

    assert objective.keys == {"fd_efficientnet_lite0", "kid_efficientnet_lite0"}
    assert parse_objective("fd_efficientnet_lite0", "efficientnet-lite0").axes == (
        parse_objective("fid", "efficientnet-lite0").axes
    )


def test_a_front_has_two_axes():
    objective = parse_objective("pareto:fid,l1", "inception")

    assert objective.has_two_objectives
    assert objective.values(VALUES) == [50.0, 12.0]
    assert objective.named([50.0, 12.0]) == {"fid": 50.0, "l1": 12.0}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "'' is no term"),
        ("fid+", "'' is no term"),
        ("fid*2", r"'fid\*2' is no term"),
        ("fid-10*ssim", "psnr and ssim, is subtracted by itself"),
        ("1e3*fid", "plain positive weights"),
        ("nan*fid", "is no term"),
        ("0*fid", "weight of fid must be above 0"),
        ("fid+fid", "must name fid once"),
        ("fod", "unknown metric 'fod'. Available: fid, kid, l1, lpips, psnr, ssim"),
        ("fd_efficientnet_lite0", "unknown metric 'fd_efficientnet_lite0'"),
        ("pareto:fid", "must name two different measures"),
        ("pareto:fid,fid", "must name two different measures"),
        ("pareto:fid,l1,ssim", "must name two different measures"),
        ("pareto:fid,", "'' is no term"),
        ("__import__('os')", "is no term"),
    ],
)
def test_what_is_no_objective_is_one_sentence(text, sentence):
    with pytest.raises(SearchError, match=sentence) as raised:
        parse_objective(text, "inception")

    assert "\n" not in str(raised.value)


def test_a_trial_is_worth_the_mean_of_its_last_evaluations_not_the_luckiest():
    objective = parse_objective("fid", "inception")
    history = [{"fid": value} for value in (90.0, 10.0, 40.0, 50.0)]

    assert objective.worth(history, 2) == [45.0]
    assert objective.worth(history[:1], 2) == [90.0]
    assert objective.worth([], 2) == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_on_the_front_is_exactly_what_nothing_beats(points):
    named = {str(number): [float(x), float(y)] for number, (x, y) in enumerate(points)}
    kept = front(named)

    def is_beaten(point):
        return any(a <= point[0] and b <= point[1] and (a, b) != point for a, b in points)

    assert set(kept) == {str(n) for n, point in enumerate(points) if not is_beaten(point)}
    assert [named[name][0] for name in kept] == sorted(named[name][0] for name in kept)
