"""Names in MLflow: no number has two, and none says `fid` of another distance."""

import re

import pytest
from ray.tune.schedulers import ASHAScheduler
from summaries import record_of, run_trial, started_plan

from thermal_search.training.trial_plan import TrialBudget
from thermal_search.tuning.logged_metrics import (
    grid_step,
    last_rung,
    logged_metrics,
    objective_keys,
    objective_sentence,
)


@pytest.mark.parametrize(
    ("objective", "features", "average_last", "keys"),
    [
        ("fid", "inception", 1, ["fid"]),
        ("fid", "efficientnet-lite0", 1, ["fd_efficientnet_lite0"]),
        ("fid", "inception", 3, ["objective_fid"]),
        ("fid", "efficientnet-lite0", 3, ["objective_fd_efficientnet_lite0"]),
        ("fid+10*l1", "inception", 1, ["objective_fid_plus_10_l1"]),
        ("fid+0.5*psnr", "inception", 1, ["objective_fid_minus_0.5_psnr"]),
        ("psnr", "inception", 1, ["objective_minus_psnr"]),
        ("2*fid", "inception", 1, ["objective_2_fid"]),
        ("pareto:fid,l1", "inception", 1, ["fid", "l1"]),
    ],
)
def test_objective_has_the_name_of_what_it_is(tmp_path, objective, features, average_last, keys):
    plan = started_plan(
        tmp_path, objective=objective, features=features, average_last=average_last, finalists=0
    )

    assert objective_keys(plan.parsed_objective, average_last) == keys
    assert all(re.fullmatch(r"[\w.]+", key) for key in keys)


def test_logged_objective_is_the_mean_and_a_metric_is_logged_once(tmp_path):
    record = record_of(tmp_path / "mean", average_last=2)
    trial = run_trial(record, 10.0, 6.0, 4.0)
    assert logged_metrics(record, trial, 3) == {"fid": 4.0, "objective_fid": 5.0}
    record = record_of(tmp_path / "last", average_last=1)

    assert logged_metrics(record, run_trial(record, 10.0, 6.0), 2) == {"fid": 6.0}


def test_objective_is_said_in_words(tmp_path):
    objective = started_plan(tmp_path, objective="fid+10*l1").parsed_objective

    assert objective_sentence(objective, 3) == (
        "mean of fid+10*l1 over the last 3 evaluations, minimized"
    )


@pytest.mark.parametrize(("images", "every", "reduction"), [(200_000, 20_000, 3.0), (96, 32, 2.0)])
def test_rungs_are_those_of_asha(images, every, reduction):
    budget = TrialBudget(images=images, evaluate_every=every)
    asha = ASHAScheduler(
        time_attr="t",
        metric="m",
        mode="min",
        max_t=images,
        grace_period=every,
        reduction_factor=reduction,
    )
    milestones = sorted(milestone for milestone, _ in asha._brackets[0]._rungs)
    for milestone in milestones:
        assert last_rung(budget, reduction, int(milestone)) == int(milestone)
        assert last_rung(budget, reduction, int(milestone) - 1) < int(milestone)

    assert last_rung(budget, reduction, every - 1) == 0


def test_grids_of_different_batch_sizes_share_their_steps():
    budget = TrialBudget(images=100, evaluate_every=30)

    assert [grid_step(budget, shown) for shown in (30, 32, 64, 90, 100, 104)] == [
        30, 30, 60, 90, 100, 100,
    ]  # fmt: skip
