"""`search --dry-run`: a real one, and what it says of measurements."""

import re

import numpy as np
import pytest

from thermal_search.cli import main
from thermal_search.training.trial_plan import TrialBudget
from thermal_search.tuning import calibrate
from thermal_search.tuning.budgets import Calibration, Speed
from thermal_search.tuning.dry_run import expected_seconds, forecast
from thermal_search.tuning.expected_stops import expected_shares, going_on
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.config import SlotPlacement

GIB = 2**30
PLACEMENT = SlotPlacement(2, {"CPU": 1.0}, 1, "PACK", "gloo")


def plan_of(tmp_path, **values):
    settings = {"data": tmp_path, "output": tmp_path / "o", "architectures": ("gan", "pix2pix")}
    return plan_from_settings(SearchSettings(**settings | values))


def calibration_of(**failures):
    speed = Speed(
        seconds_per_operation=1e-12, seconds_per_image=0.01, memory_bytes=3 * GIB, batch_size=4
    )
    speeds = {name: speed for name in ("gan", "pix2pix") if name not in failures}
    return Calibration(size=64, compute=1000.0, device="H", speeds=speeds, failures=failures)


def of_images(name, share):
    """The work of networks that do not grow."""
    return share


def test_forecast_names_what_does_not_fit(tmp_path):
    text = forecast(plan_of(tmp_path), PLACEMENT, calibration_of(), 2 * GIB)
    missing = calibration_of(gan="out of memory: tried to allocate")
    other = forecast(plan_of(tmp_path), PLACEMENT, missing, 4 * GIB)

    assert "2 slot(s) of 1 worker(s) on H" in text
    assert "Does not fit the memory of a slot at the published point: gan, pix2pix." in text
    assert "the published point: gan. " in other
    assert "60 trials and 6 retrainings: about" in other


def test_forecast_of_hours_is_open_ended(tmp_path):
    text = forecast(plan_of(tmp_path, hours=12), PLACEMENT, calibration_of(), 4 * GIB)

    assert "As many trials as fit 12 hours" in text
    assert "Does not fit" not in text


def test_whole_search_is_all_its_trials_and_retrainings(tmp_path):
    seconds = {"gan": 100.0, "pix2pix": 300.0}

    assert expected_seconds(plan_of(tmp_path), seconds, 1) == pytest.approx(66 * 201)
    assert not (tmp_path / "o").exists()


def test_share_that_asha_leaves_of_four_trials_by_hand():
    """A rung at half of the budget, reduction 2. Of 4 trials there the first continues, the second
    with 1/2, the third with (1/2 + 1)/3 = 1/2, the fourth with (2/2 + 1)/4 = 1/2: 2.5 of them."""
    budgets = {"gan": TrialBudget(images=20, evaluate_every=10)}
    (share,) = expected_shares("asha", budgets, 4, 2.0, of_images).values()

    assert going_on(4, 2.0) == pytest.approx(2.5)
    assert share == pytest.approx((4 * 0.5 + 2.5 * 0.5) / 4)


def test_share_that_asha_leaves_of_two_architectures_by_hand():
    """Rungs after 1 and 3 of 9 evaluations, reduction 3. Of 2 trials at the first, within their
    architecture, 1 + 1/2 continue: 3 of both at the second. There 1 + 1/2 + (1/3 + 1)/3 continue,
    of each architecture half as many: 35/36."""
    budgets = {name: TrialBudget(images=90, evaluate_every=10) for name in ("gan", "wgan")}
    shares = expected_shares("asha", budgets, 4, 3.0, of_images)

    expected = (2 * 1 / 9 + 1.5 * 2 / 9 + 35 / 36 * 6 / 9) / 2
    assert shares == {"gan": pytest.approx(expected), "wgan": pytest.approx(expected)}


def test_share_that_asha_leaves_of_growing_networks_by_hand():
    """They are compared at their full size, after 5 of 9 evaluations, which is a fifth of the work
    here. The common rung after 3 is none of theirs."""
    budgets = {"stylegan": TrialBudget(images=90, evaluate_every=10, full_size_from=50)}

    def done(name, share):
        return 0.2 * share / (5 / 9) if share <= 5 / 9 else 0.2 + 0.8 * (share - 5 / 9) / (4 / 9)

    (share,) = expected_shares("asha", budgets, 2, 3.0, done).values()
    assert share == pytest.approx((2 * 0.2 + 1.5 * 0.8) / 2)


def test_share_that_hyperband_leaves_by_hand():
    """Rungs after 1 and 2 of 4 evaluations, reduction 2: brackets with both, with the second, and
    with none, for 4/3, 2/2 and 1 of the trials: 4, 3 and 3 of 10."""
    budgets = {"gan": TrialBudget(images=40, evaluate_every=10)}
    (share,) = expected_shares("hyperband", budgets, 10, 2.0, of_images).values()

    first = 4 * 1 / 4 + 2.5 * 1 / 4 + (1 + 1.5 * 0.5) * 2 / 4
    second = 3 * 2 / 4 + 2 * 2 / 4
    assert share == pytest.approx((first + second + 3) / 10)


@pytest.mark.parametrize("reduction", [2.0, 3.0, 4.0])
def test_rung_keeps_one_of_reduction_in_a_long_search(reduction):
    assert going_on(1e5, reduction) / 1e5 == pytest.approx(1 / reduction, abs=1e-3)


def test_those_that_go_on_are_those_that_a_percentile_lets_through():
    """As the schedulers compute it, of values in random order."""
    generator, arrivals, searches = np.random.default_rng(0), 10, 2000
    values, count = generator.random((searches, arrivals)), searches
    for number in range(1, arrivals):
        thresholds = np.percentile(values[:, :number], 100 / 3, axis=1)
        count += int((values[:, number] <= thresholds).sum())

    assert going_on(arrivals, 3.0) == pytest.approx(count / searches, rel=0.02)


def test_forecast_has_the_hours_with_and_without_early_stopping(tmp_path):
    def last(**settings):
        plan = plan_of(tmp_path, **settings)
        (line,) = [
            line
            for line in forecast(plan, PLACEMENT, calibration_of(), 4 * GIB).splitlines()
            if line.startswith("60 trials and 6 retrainings: about ")
        ]
        return line

    asha = last()
    full, stopped = map(float, re.findall(r"about ([\d.]+) hours", asha))
    assert 0.1 * full < stopped < 0.6 * full
    assert "if no trial is stopped early, and about" in asha
    assert "hours if asha stops as many as of trials in random order." in asha
    hyperband = re.findall(r"about ([\d.]+) hours", last(scheduler="hyperband"))
    assert stopped < float(hyperband[1]) < full
    assert last(scheduler="median").endswith(
        "hours if no trial is stopped early; how many median stops depends on the learning curves."
    )
    for scheduler in ("none", "pbt"):  # which stop none
        assert re.fullmatch(r".*: about [\d.]+ hours\.", last(scheduler=scheduler))


def test_retrainings_are_not_stopped_early(tmp_path):
    seconds = {"gan": 99.0, "pix2pix": 99.0}
    shares = {"gan": 0.5, "pix2pix": 0.5}

    total = expected_seconds(plan_of(tmp_path), seconds, 1, shares)
    assert total == pytest.approx(60 * 50.5 + 6 * 100)


@pytest.mark.ray
def test_dry_run_measures_and_writes_nothing(dataset, tmp_path, capsys, monkeypatch):
    # Ten seconds of training for each, and all the rest to start.
    monkeypatch.setattr(calibrate, "START_SECONDS", calibrate.SECONDS - 20)
    flags = ["--data", dataset, "--output", tmp_path / "o", "--architectures", "gan,pix2pix"]
    flags += ["--fix", "pix2pix.generator_width=32,pix2pix.discriminator_width=32", "--dry-run"]
    flags += ["--address", "local", "--slots", "1", "--trials", "7"]
    before = sorted(tmp_path.rglob("*")), sorted(dataset.rglob("*"))
    main(["search", *map(str, flags)])
    text = capsys.readouterr().out

    for name in ("gan", "pix2pix"):
        (row,) = [line.split() for line in text.splitlines() if line.startswith(f"{name} ")]
        assert 0 < float(row[1]) < 10
        assert float(row[2]) > 0
        assert int(row[4].replace(",", "")) > 1000
    assert "7 trials and 0 retrainings: about" in text
    assert "estimated" not in text
    assert (sorted(tmp_path.rglob("*")), sorted(dataset.rglob("*"))) == before
