"""The progress of a search on the screen."""

import io
import re

from rich.console import Console
from summaries import evaluate, record_of, run_trial

from thermal_search.tuning.progress import Progress
from thermal_search.tuning.record import SearchRecord


def text(progress):
    return "\n".join(progress.status())


def test_speed_after_a_resume_is_that_of_this_run(tmp_path):
    """What was shown before it counts neither way."""
    record = record_of(tmp_path, images=10, trials=3)
    run_trial(record, *range(9, 0, -1))
    running = run_trial(record, 8.0, 7.0, status="running")

    resumed = SearchRecord.load(tmp_path)
    progress = Progress(
        resumed.plan, resumed, console=Console(file=io.StringIO()), estimate=lambda: 61.0
    )
    assert "images/s" not in " ".join(progress.status())  # unknown yet
    resumed.start(running.id)
    evaluate(resumed, running.id, 6.0)
    progress.started -= 2.0

    speed, left = re.search(
        r"([-\d.]+) images/s, at most (\S+) left", progress.status()[0]
    ).groups()
    assert 0 < float(speed) <= 0.5
    assert left == "1:01"
    resumed.end(running.id, "stopped", "")
    assert "-" not in progress.status()[0]


def test_status_is_shown_less_often_than_events_and_once_more_at_the_end(tmp_path):
    """It counts every trial, which takes long with thousands of them."""
    record = record_of(tmp_path, trials=300)
    trials = [run_trial(record, 9.0) for _ in range(300)]
    printed = io.StringIO()
    progress = Progress(record.plan, record, console=Console(file=printed))

    for trial in trials:
        progress.show(trial.id, "ends")

    lines = printed.getvalue().splitlines()
    assert sum("ends" in line for line in lines) == 300
    assert 0 < sum("trials done" in line for line in lines) < 200
    progress.begin(trials[-1].id)
    progress.is_status_shown = False  # the last event was too soon after the one before
    progress.end(trials[-1].id)
    progress.next_status, before = 0.0, printed.tell()
    progress.catch_up()  # as soon as there is time for it
    assert "300/300 trials done" in printed.getvalue()[before:]
    progress.is_status_shown = False
    progress.close()
    assert "300/300 trials done" in printed.getvalue().splitlines()[-2]
