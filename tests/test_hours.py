"""How long a search takes: what ends it in time, and what it says is left. Virtual time."""

import pytest
from summaries import record_of, run_trial
from virtual_search import VirtualSearch

from thermal_search.errors import SearchError
from thermal_search.training.operations import Cost
from thermal_search.tuning.hours import compute_for
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.time_left import TrialTimes, makespan, time_left
from thermal_search.tuning.trial_source import proposed_trials, retrainings

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
SECONDS = {"gan": 300.0, "pix2pix": 400.0, "wgan": 500.0}
"""Of a full trial."""


def search_of(folder, hours, **changes):
    """A search with --hours that ends by its time alone."""
    settings = {"architectures": tuple(SECONDS), "images": 1000, "hours": hours, "slots": 2}
    return record_of(folder, **settings | changes)


def statuses(record):
    return [trial.status for trial in record.trials.values()]


def test_search_ends_in_time_with_a_final_ranking(tmp_path):
    record = search_of(tmp_path, hours=1.5)
    search = VirtualSearch(record, SECONDS)
    search.run()
    loaded = SearchRecord.load(tmp_path)

    assert 0.75 * 1.5 < search.now / 3600 <= 1.5
    assert len(record.trials) > 10
    assert set(statuses(record)) == {"completed", "stopped"}
    assert loaded.final_ranking
    assert [len(ranked.seeds) for ranked in loaded.final_ranking.ranking] == [2, 2, 2]
    assert loaded.time.seconds == pytest.approx(search.now)
    loaded.require_results()


def test_running_trials_end_when_the_time_is_over(tmp_path):
    """Their architectures turn out to be slower than they were."""
    settings = {"architectures": ("gan", "wgan"), "finalists": 1, "seeds": 1, "scheduler": "none"}
    record = search_of(tmp_path, hours=0.5, **settings)
    search = VirtualSearch(record, {"gan": 200.0, "wgan": 3000.0})
    search.run()

    assert search.now <= 0.5 * 3600
    ended = [trial for trial in record.trials.values() if trial.is_out_of_time]
    assert {trial.architecture for trial in ended} == {"wgan"}
    assert record.final_ranking


def test_trial_that_never_comes_to_an_evaluation_ends_by_the_clock(tmp_path):
    """The first of its architecture: nothing foretells how long it takes."""
    settings = {"architectures": ("gan", "wgan"), "finalists": 1, "seeds": 1, "scheduler": "none"}
    record = search_of(tmp_path, hours=0.5, **settings)
    search = VirtualSearch(record, {"gan": 200.0, "wgan": 1e6})
    search.run()

    assert 0.9 * 1800 < search.now <= 1800
    ended = [trial for trial in record.trials.values() if trial.is_out_of_time]
    assert {(trial.architecture, trial.images) for trial in ended} == {("wgan", 0)}
    assert SearchRecord.load(tmp_path).final_ranking


def test_nothing_is_kept_free_for_retrainings_that_cannot_be(tmp_path):
    """Trials that take 1.2 of 2 hours: the retrainings of all finalists would never fit, and the
    first evaluation, which says so, does not end them."""
    settings = {"architectures": ("wgan",), "finalists": 3, "seeds": 2, "scheduler": "none"}
    record = search_of(tmp_path, hours=2, **settings)
    VirtualSearch(record, {"wgan": 1.2 * 3600}).run()

    assert "completed" in statuses(record)


def test_search_without_any_evaluation_ends_by_the_clock_and_continues(tmp_path):
    record = search_of(tmp_path, hours=0.5, architectures=("wgan",), finalists=1, seeds=1)
    search = VirtualSearch(record, {"wgan": 30 * 3600})
    search.run()

    assert search.now <= 1800
    assert statuses(record) == ["stopped", "stopped"]
    with pytest.raises(SearchError, match="No trial reached its first evaluation within --hours"):
        record.require_results()
    record.plan.replace(hours=200.0).save()
    longer = SearchRecord.load(tmp_path)
    VirtualSearch(longer, {"wgan": 30 * 3600}).run()
    assert [longer[id].status for id in record.trials] == ["completed", "completed"]
    assert longer.final_ranking


def test_retrainings_end_by_the_clock(tmp_path):
    settings = {"architectures": ("gan",), "finalists": 1, "seeds": 2, "scheduler": "none"}
    record = search_of(tmp_path, hours=0.5, slots=1, **settings)
    search = VirtualSearch(record, {"gan": 300.0}, slots=1)
    search.clock.begin("trials")
    trials = proposed_trials(record, time=search.clock)
    assert search._run_phase("trials", trials, None)
    search.seconds = {"gan": 1e6}
    assert search._run_phase("retrainings", retrainings(record, search.clock), None)

    assert search.now <= 1800
    (retraining,) = record.retrainings.values()
    assert retraining.is_out_of_time
    assert record.time.are_retrainings_over


def test_more_hours_continue_the_search(tmp_path):
    record = search_of(tmp_path, hours=0.5)
    VirtualSearch(record, SECONDS).run()
    assert SearchRecord.load(tmp_path).time.are_trials_over
    record.plan.replace(hours=1.0).save()
    longer = SearchRecord.load(tmp_path)
    search = VirtualSearch(longer, SECONDS)
    search.run()

    assert len(longer.trials) > len(record.trials)
    for trial in record.trials.values():
        assert longer[trial.id].history[: len(trial.history)] == trial.history
    # The first half hour counts.
    assert longer.time.seconds <= 3600
    assert longer.final_ranking


def test_a_finished_search_starts_nothing_when_it_resumes(tmp_path):
    record = search_of(tmp_path, hours=0.5)
    VirtualSearch(record, SECONDS).run()
    again = SearchRecord.load(tmp_path)
    before = again.summary.model_dump()
    VirtualSearch(again, SECONDS).run()

    assert again.summary.model_dump() == before


def test_search_that_is_killed_has_the_time_that_is_left(tmp_path):
    record = search_of(tmp_path, hours=1.0)
    search = VirtualSearch(record, SECONDS, ends_at=1800.0)
    assert not search.run()
    search.clock.save()
    loaded = SearchRecord.load(tmp_path)
    rest = VirtualSearch(loaded, SECONDS)
    assert rest.run()

    assert rest.now <= 1800
    assert loaded.time.seconds <= 3600
    assert loaded.final_ranking


def test_a_trial_is_ended_at_its_evaluation():
    stopper, over = SearchStopper("the same command"), []
    stopper.is_time_over = lambda id: bool(over)

    assert not stopper("00000", {})
    over.append(True)
    assert stopper("00001", {})
    assert (stopper.has_ended("00000"), stopper.has_ended("00001")) == (False, True)
    assert not stopper.stop_all()


def test_full_trials_and_retrainings_fit_the_hours():
    compute = compute_for(12, slots=2, trials=60, retrainings=6, seconds_per_unit=0.01)

    assert 0.5 < (30 + 3) * compute * 0.01 / 3600 / 12 < 0.9


def done(trial):
    """Networks that grow are cheap until 0.65 of their images."""
    is_growing = trial.architecture == "progressive_gan"
    return Cost(((0.65, 1.0), (1.0, 9.0))).done(trial.share) if is_growing else trial.share


@pytest.mark.parametrize(("slots", "trials"), [(1, 60), (4, 60)])
def test_time_left_is_right_after_a_quarter(tmp_path, slots, trials):
    """Architectures whose trials take from a third to three times as long, and growing networks.

    With a sampler that chooses them evenly: nothing foretells which ones another will prefer later.
    """
    names = ("biggan", "gan", "pix2pix", "progressive_gan", "wgan")
    settings = {"architectures": names, "images": 10_000, "trials": trials}
    settings["sampler"] = "random"
    record = record_of(tmp_path, finalists=3, seeds=2, scheduler="none", **settings)
    seconds = dict(zip(names, (1800.0, 200.0, 600.0, 900.0, 400.0), strict=True))
    search = VirtualSearch(record, seconds, slots=slots, done=done, estimate_every=500.0)
    search.run()

    assert set(statuses(record)) == {"completed"}
    now, estimate = next(item for item in search.estimates if item[0] >= search.now / 4)
    assert estimate == pytest.approx(search.now - now, rel=0.25)


def test_time_left_of_the_retrainings(tmp_path):
    record = record_of(tmp_path, trials=2, finalists=1, seeds=2, images=10, evaluate_every=1)
    for value in (3.0, 2.0):
        run_trial(record, *([value] * 10))

    assert time_left(record, 1, "retrainings", TrialTimes(record)) == pytest.approx(2 * (1.0 + 1.0))
    assert time_left(record, 2, "retrainings", TrialTimes(record)) == pytest.approx(1.0 + 1.0)


def test_nothing_is_said_before_anything_is_known(tmp_path):
    record = record_of(tmp_path, trials=2)

    assert time_left(record, 1, "trials", TrialTimes(record)) is None
    known = TrialTimes(record, before={"pix2pix": 100.0})
    assert time_left(record, 1, "trials", known) == pytest.approx(202)


def test_slots_share_the_trials():
    assert makespan([10, 10, 10], 2) == pytest.approx(22)
    assert makespan([], 3) == 0.0
