"""The progress of a search: who is in which slot, the best beside its baseline, at 80 columns."""

import io

import pytest
from rich.console import Console
from summaries import evaluate, record_of, run_trial

from thermal_search.tuning.progress import Progress
from thermal_search.tuning.slots.messages import TrialConfig

BASELINES = {"inverted_grey": {"fid": 151.3, "l1": 61.0}}


@pytest.fixture
def record(tmp_path):
    """Two finished trials, of which the second is the better one, and two that run."""
    architectures = ("progressive_gan", "pix2pix")
    record = record_of(tmp_path, trials=6, images=4, evaluate_every=1, architectures=architectures)
    run_trial(record, 120.0, 110.0, 105.0, 99.0)
    run_trial(record, 90.0, 80.0, 71.25, 70.5, architecture="progressive_gan", baselines=BASELINES)
    for number in (2, 3):
        record.add(number, TrialConfig("progressive_gan", {}))
    return record


def progress_of(record, *, is_terminal):
    file = io.StringIO()
    console = Console(width=80, file=file, force_terminal=is_terminal, color_system=None)
    progress = Progress(record.plan, record, console=console, estimate=lambda: 61.0)
    for id in ("00002", "00003"):
        progress.begin(id)
    evaluate(record, "00002", 130.25, 101.5)
    return progress, file


def table_of(progress):
    file = io.StringIO()
    Console(width=80, file=file).print(progress._table())
    return file.getvalue().splitlines()


def test_log_file_has_short_lines_without_escapes(record):
    progress, file = progress_of(record, is_terminal=False)
    progress.show("00002", "2 images: fid 101.50 (31.2 images/s)")
    progress.close()
    lines = file.getvalue().splitlines()

    assert "\x1b" not in file.getvalue()
    assert lines[0] == ("[0:00] slot 1: 00002 progressive_gan 2 images: fid 101.50 (31.2 images/s)")
    assert lines[1].startswith("    2/6 trials done, ")
    assert lines[1].endswith(" at most 1:01 left")
    assert lines[2] == "    best fid 70.5 (progressive_gan 00001); inverted grey 151.3"
    assert max(map(len, lines)) <= 80


def test_table_shows_the_slots_first_and_then_the_best(record):
    progress, _ = progress_of(record, is_terminal=False)
    lines = [line.split() for line in table_of(progress)]

    assert lines[0] == ["slot", "trial", "architecture", "images", "fid", "status"]
    assert lines[1] == ["1", "00002", "progressive_gan", "2", "(50%)", "101.50", "running"]
    assert lines[2] == ["2", "00003", "progressive_gan", "0", "(0%)", "-", "running"]
    assert lines[3] == ["00001", "progressive_gan", "4", "(100%)", "70.50", "completed"]
    assert lines[4] == ["00000", "pix2pix", "4", "(100%)", "99.00", "completed"]


def test_trial_takes_the_slot_that_another_has_left(record):
    progress, _ = progress_of(record, is_terminal=False)
    record.end("00002", "stopped", "")
    progress.end("00002")
    assert table_of(progress)[1].split() == ["1", "free"]
    record.add(4, TrialConfig("pix2pix", {}))
    progress.begin("00004")

    assert table_of(progress)[1].split()[:3] == ["1", "00004", "pix2pix"]
    assert table_of(progress)[2].split()[:2] == ["2", "00003"]


def test_widest_names_fit_80_columns(tmp_path):
    record = record_of(tmp_path, images=10_000_000, features="efficientnet-lite0")
    progress = Progress(record.plan, record, console=Console(width=80, file=io.StringIO()))
    trial = record.add(0, TrialConfig("progressive_gan", {}))
    record.add_retraining(trial, 12)
    progress.begin("00000-seed-12")
    (row,) = [line for line in table_of(progress) if "seed" in line]

    assert row.split() == ["1", "00000-seed-12", "progressive_gan", "0", "(0%)", "-", "running"]


def test_terminal_shows_the_table_live(record):
    progress, file = progress_of(record, is_terminal=True)
    progress.show("00002", "2 images")
    progress.close()

    assert "00003  progressive_gan" in file.getvalue()
    assert "2 images\n" not in file.getvalue()
