"""`search --dry-run`: a real one, and what it says of measurements."""

import pytest

from thermal_search.cli import main
from thermal_search.tuning import calibrate
from thermal_search.tuning.budgets import Calibration, Speed
from thermal_search.tuning.dry_run import expected_seconds, forecast
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
