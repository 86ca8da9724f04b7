"""Population based training: who continues from whom, with what, and that a search which is killed
at any of its writes ends as an undisturbed one. No Ray processes."""

import hashlib
import itertools
import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from killed_writes import Killed, kill_at
from optuna.trial import TrialState
from ray import tune
from ray.tune.experiment import Experiment
from summaries import record_of, started_plan
from virtual_search import VirtualSearch

import search_spaces
from thermal_search import checkpoint
from thermal_search.documents import backup_of
from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.training.trial_plan import ComparisonPoints, TrialBudget, TrialEvaluation
from thermal_search.tuning.course import config_of
from thermal_search.tuning.learned import learn
from thermal_search.tuning.logged_metrics import end_tags, logged_metrics
from thermal_search.tuning.population import (
    Arrival,
    better_half,
    better_quarter,
    explorable,
    explore,
)
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers import build_scheduler
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.trial_source import TrialSource, proposed_trials, retrainings
from thermal_search.tuning.trial_study import TrialStudy

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
IMAGES = 3
WIDTHS = (32, 64, 96, 128)
SETTINGS = {
    "architectures": ("wgan",),
    "trials": 6,
    "seed": 4,  # with which trials continue from others, and one of them is a finalist
    "images": IMAGES,
    "evaluate_every": 1,
    "average_last": 1,
    "scheduler": "pbt",
    "perturb_every": 1,
    "finalists": 2,
    "seeds": 1,
}


def arrivals_of(*values):
    return [Arrival(f"{n:05d}", n, 1, 10, value) for n, value in enumerate(values)]


def names(arrivals):
    return [arrival.trial for arrival in arrivals]


def test_lowest_quarter_continues_from_the_upper_quarter():
    *others, own = arrivals_of(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0)

    assert names(better_quarter(own, others)) == ["00000", "00001"]
    # The seventh of eight is in the lowest quarter, the sixth is not.
    assert better_quarter(others[6], [*others[:6], own])
    assert not better_quarter(others[5], [*others[:5], others[6], own])


@pytest.mark.parametrize("values", [(1.0, 2.0, 3.0), (3.0,), (1.0, 1.0, 1.0, 1.0)])
def test_few_or_equal_trials_continue_from_none(values):
    *others, own = arrivals_of(*values)

    assert better_quarter(own, others) == []


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=40), st.integers(0, 39))
def test_donors_are_better_and_at_most_a_quarter(values, index):
    everyone = arrivals_of(*values)
    own = everyone.pop(index % len(everyone))
    donors = better_quarter(own, everyone)

    assert len(donors) <= (len(everyone) + 1) // 4
    assert all(donor.value < own.value for donor in donors)
    kept = better_half([own, *everyone])
    assert {donor.trial for donor in donors} <= {arrival.trial for arrival in kept}
    if donors:
        assert sum(other.value <= own.value for other in everyone) >= len(everyone) / 2


@given(st.sampled_from(search_spaces.names()), st.integers(0, 2**32 - 1), st.data())
def test_explored_parameters_stay_in_their_ranges_and_others_as_they_are(name, seed, data):
    space = search_spaces.load(name)
    parameters = dict(space.published)
    for parameter in explorable(space):
        bounds = space.space[parameter]
        parameters[parameter] = data.draw(st.floats(bounds.low, bounds.high))
    explored, drawn = explore(space, parameters, seed)

    assert explored.keys() == parameters.keys()
    assert drawn == explorable(space)
    for parameter, value in explored.items():
        before = parameters[parameter]
        if parameter not in drawn:
            assert value == before
            continue
        bounds = space.space[parameter]
        assert bounds.low <= value <= bounds.high
        width = 0.1 * (bounds.high - bounds.low)
        steps = [0.8 * before, 1.2 * before] if bounds.log else [before - width, before + width]
        clipped = [min(max(step, bounds.low), bounds.high) for step in steps]
        assert value in clipped
    assert explore(space, parameters, seed) == (explored, drawn)


def test_draw_of_a_parameter_does_not_depend_on_which_others_apply():
    space = search_spaces.load("gan")
    adam = {"optimizer": "adam", "generator_adam_lr": 1e-4, "l1_weight": 10.0}
    sgd = {"optimizer": "sgd", "generator_lr": 1e-2, "discriminator_lr": 1e-2, "l1_weight": 10.0}

    for seed in range(20):
        assert (
            explore(space, adam, seed)[0]["l1_weight"] == explore(space, sgd, seed)[0]["l1_weight"]
        )


def test_trials_are_compared_at_their_full_size_and_not_at_the_end():
    points = ComparisonPoints(every=20, first=30, last=70)

    # Batches of 8: each evaluation follows the first step that reaches its multiple of 10.
    assert points.arrivals([16, 24, 32, 40, 56, 64, 72, 80]) == {2: 40, 3: 64}


def write_state(record, trial, images):
    """As a worker: it keeps the two latest and those at the points."""
    folder = record.folder(trial)
    state = checkpoint.pending(folder, images)
    state.make_subfolder()
    (state / "shared.pt").write_bytes(b"state")
    shown = [item.images for item in trial.history if item.images < images] + [images]
    points = record.plan.comparison_points(trial.budget)
    checkpoint.commit(state, ["shared.pt"], points.arrivals(shown).values() if points else ())


def report_of(config, id, images):
    """The evaluation after so many images: it follows from the parameters at that time alone."""
    course = config.course
    parameters = dict(config.parameters)
    for change in course.changes if course else ():
        parameters = parameters if change.images > images - 1 else dict(change.parameters)
    text = repr((sorted(parameters.items()), config.seed))
    evaluation = TrialEvaluation(
        images=images,
        metrics={"fid": hashlib.sha256(text.encode()).digest()[0] + 100 / images},
        losses={},
        seconds=float(images),
        images_per_second=1.0,
        grid=None,
    )
    is_last = images == IMAGES
    return TrialReport(
        status="completed" if is_last else "running",
        evaluation=evaluation,
        baselines={"inverted_grey": {"fid": 60.0}},
        test_metrics={"fid": 1.0} if is_last and config.seed is not None else {},
    )


def run_phase(record, trials, scheduler):
    """What Ray Tune, SearchCallback and one slot do; a slot reports from its state on."""
    source = TrialSource(record.plan, trials, 1, SearchStopper("the same command"))
    source.add_configurations([Experiment("trials", tune.Trainable)])
    while trial := source.next_trial():
        id, config = trial.trial_id, TrialConfig.of(trial.config)
        record.start(id)
        origin = config.course.origin if config.course else None
        for images in range(origin.images + 1 if origin else 1, IMAGES + 1):
            if not checkpoint.is_kept(record.folder(record[id]), images):
                write_state(record, record[id], images)
            report = report_of(config, id, images)
            result = {"status": report.status, "images": images, REPORT: report}
            exploit = None
            if scheduler:
                assert scheduler.on_trial_result(None, trial, result) == "CONTINUE"
                exploit = scheduler.exploits.pop(id, None)
            record.add_evaluation(id, report, exploit)
            if exploit:
                config = config_of(record.plan, record[id])
        source.on_trial_complete(id)
        record.end(id, "completed", "")


def search(output, trials=None):
    """Begins a search, or resumes the one in `output`; with `trials` only so many."""
    record = SearchRecord.load(output)
    new = itertools.islice(proposed_trials(record), trials)
    run_phase(record, new, build_scheduler(record))
    if not trials:
        run_phase(record, retrainings(record), None)
    record.flush()
    return record


def states_of(output):
    return sorted(str(p.parent.relative_to(output)) for p in output.rglob("commit.json"))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """A search of three trials so far: too few for any to continue from another."""
    output = tmp_path_factory.mktemp("searches") / "begun"
    record_of(output, **SETTINGS)
    search(output, trials=3)
    return output


@pytest.fixture(scope="module")
def undisturbed(begun):
    output = begun.parent / "undisturbed"
    shutil.copytree(begun, output)
    record = search(output)
    assert sum(len(trial.exploits) for trial in record.trials.values()) >= 2
    assert any(len(trial.lineage) > 1 for trial in record.finalists())
    assert record.final_ranking
    return record.summary.model_dump(), states_of(output), record


def test_search_killed_at_each_write_ends_as_an_undisturbed_one(
    tmp_path, monkeypatch, begun, undisturbed
):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing loses power here
    summary, states, _ = undisturbed
    step = 0
    while True:
        step += 1 if step < 70 else 3  # the last ones are of retrainings
        output = tmp_path / str(step)
        shutil.copytree(begun, output)
        with monkeypatch.context() as patch:
            kill_at(patch, step, counts=lambda path: checkpoint.STATE not in path)
            try:
                search(output)
                break  # there is no such step
            except Killed:
                pass
        before = SearchRecord.load(output)
        record = search(output)

        assert record.summary.model_dump() == summary, step
        # A search that resumes may remove a state earlier, after its last comparison too.
        assert set(states_of(output)) <= set(states), step
        for trial in before.trials.values():
            assert record[trial.id].exploits[: len(trial.exploits)] == trial.exploits
        shutil.rmtree(output)
    assert step > 80


def first_exploit(record):
    return next((t, e) for t in record.trials.values() for e in t.exploits)


def test_record_says_who_came_from_whom_and_with_what(undisturbed):
    summary, _, record = undisturbed
    trial, exploit = first_exploit(record)
    donor = record[exploit.donor]

    assert donor.history[exploit.donor_evaluation - 1].images == exploit.donor_images
    assert exploit.donor_images == exploit.images
    assert exploit.value > exploit.donor_value
    assert exploit.ancestors[-1] == donor.id
    # All that is not explored is the donor's, and the rest close to it.
    taken_over = donor.parameters_at(exploit.donor_images)
    after = trial.parameters_at(exploit.images + 1)
    assert {n for n in after if after[n] != taken_over[n]} <= set(exploit.explored)
    assert after.keys() == taken_over.keys()
    before = trial.parameters_at(exploit.images)
    assert before == trial.proposed
    for name, change in exploit.changed.items():
        assert (before.get(name), after.get(name)) == (change.before, change.after)
    assert exploit.reason.startswith(
        f"at {exploit.images:,} images its fid of {exploit.value:.4g} is in the lowest quarter of "
        f"{exploit.trials} wgan trials: continues from {donor.id} (fid {exploit.donor_value:.4g}) "
        f"with generator_lr {after['generator_lr']:.3g} instead of its "
        f"{taken_over['generator_lr']:.3g}, critic_lr "
    )
    assert summary["lineages"][trial.id] == trial.lineage
    assert trial.lineage[-1] == trial.id


def test_exploit_counts_only_evaluations_of_the_weights_taken_over(tmp_path):
    record = record_of(tmp_path, **SETTINGS | {"average_last": 3, "images": 12, "trials": 4})
    fill(record, [[50, 50, 50]] * 3)
    trial = begin(record)
    report(record, trial, 1, 90.0, build_scheduler(record))
    assert trial.exploits
    assert record.objective_values(trial) == [90.0]
    report(record, trial, 2, 40.0, build_scheduler(record))

    assert record.objective_values(trial) == [40.0]
    assert record.objective_after(trial, 1) == [90.0]


def begin(record):
    number = len(record.trials)
    published = search_spaces.load("wgan").published
    own = {"generator_lr": 1e-4, "critic_lr": 1e-4, "width": WIDTHS[number % len(WIDTHS)]}
    config = TrialConfig("wgan", {**published, **own})
    trial = record.add(number, config)
    record.start(trial.id)
    return trial


def report(record, trial, images, value, scheduler):
    evaluation = TrialEvaluation(
        images=images,
        metrics={"fid": value},
        losses={},
        seconds=10.0 * images,
        images_per_second=1.0,
        grid=None,
    )
    write_state(record, trial, images)
    result = TrialReport(status="running", evaluation=evaluation)

    class TuneTrial:
        trial_id = trial.id

    scheduler.on_trial_result(None, TuneTrial, {"status": "running", REPORT: result})
    exploit = scheduler.exploits.pop(trial.id, None)
    record.add_evaluation(trial.id, result, exploit)
    return exploit


def fill(record, curves, status="completed"):
    scheduler = build_scheduler(record)
    for values in curves:
        trial = begin(record)
        for images, value in enumerate(values, start=1):
            report(record, trial, images, value, scheduler)
        record.end(trial.id, status, "")


def test_trial_takes_over_what_shapes_the_networks_and_says_so(tmp_path):
    record = record_of(tmp_path, **SETTINGS | {"images": 12})
    fill(record, [[10], [20], [30]])
    trial = begin(record)
    exploit = report(record, trial, 1, 90.0, build_scheduler(record))

    assert exploit.donor == "00000"
    assert trial.parameters["width"] == 32
    assert exploit.changed["width"].before == 128
    assert exploit.changed["width"].after == 32
    assert "width" not in exploit.explored
    assert exploit.seconds == 10.0
    # Written and read again it is the same.
    assert SearchRecord.load(tmp_path)[trial.id] == trial


@pytest.mark.parametrize("status", ["diverged", "failed"])
def test_no_trial_continues_from_one_that_diverged_or_failed(tmp_path, status):
    record = record_of(tmp_path, **SETTINGS | {"images": 12})
    fill(record, [[10]], status)
    fill(record, [[20], [30]])

    assert report(record, begin(record), 1, 90.0, build_scheduler(record)) is None


def test_no_trial_continues_from_a_state_that_is_gone(tmp_path):
    record = record_of(tmp_path, **SETTINGS | {"images": 12})
    fill(record, [[10], [20], [30]])
    checkpoint.remove(checkpoint.pending(record.folder(record["00000"]), 1))

    assert report(record, begin(record), 1, 90.0, build_scheduler(record)) is None


def test_states_of_the_worse_half_are_removed(tmp_path):
    record = record_of(tmp_path, **SETTINGS | {"images": 12, "trials": 20})
    fill(record, [[10 + n] * 12 for n in range(10)])
    scheduler = build_scheduler(record)
    report(record, begin(record), 1, 5.0, scheduler)
    report(record, begin(record), 1, 5.0, scheduler)
    kept = [
        id for id, trial in record.trials.items() if checkpoint.is_kept(record.folder(trial), 1)
    ]

    # With ten trials there is room for a fifth, which was gone by then.
    assert kept == ["00000", "00001", "00002", "00003", "00010", "00011"]
    trial = record["00009"]
    assert checkpoint.is_kept(record.folder(trial), 12)  # its two latest remain
    assert checkpoint.is_kept(record.folder(trial), 11)


def test_sampler_learns_of_a_setting_what_it_reached_until_it_was_given_up(tmp_path):
    record = record_of(tmp_path, **SETTINGS | {"images": 12, "no_published": True})
    fill(record, [[10], [20], [30]])
    trial = begin(record)
    report(record, trial, 1, 90.0, build_scheduler(record))
    report(record, trial, 2, 1.0, build_scheduler(record))
    record.end(trial.id, "completed", "")
    assert trial.parameters["generator_lr"] != 1e-4
    study = TrialStudy(record, [], record.plan.search_space().flatten)
    study.update()
    told = study.study.trials[trial.number]

    assert told.state is TrialState.PRUNED
    assert told.intermediate_values == {1: 90.0}
    assert told.params["wgan/generator_lr"] == 1e-4
    assert told.params["wgan/width"] == 128
    assert [t.state for t in study.study.trials[:3]] == [TrialState.COMPLETE] * 3


def test_later_search_learns_only_of_settings_that_were_kept(tmp_path, undisturbed):
    _, _, record = undisturbed
    settings = SETTINGS | {"learn_from": record.output, "scheduler": "asha"}
    plan = started_plan(tmp_path, **settings)
    kept = [trial for trial in record.trials.values() if not trial.exploits]
    learned = learn(plan)

    assert 0 < len(kept) < len(record.trials)
    assert [trial.parameters for trial in learned.trials] == [trial.parameters for trial in kept]
    assert learned.first == []


def test_mlflow_shows_the_history(undisturbed):
    _, _, record = undisturbed
    trial, exploit = first_exploit(record)
    tags = end_tags(record, trial)
    rates = [
        logged_metrics(record, trial, count)["pbt/generator_lr"]
        for count in range(1, len(trial.history) + 1)
    ]

    assert tags["pbt_parent"] == trial.exploits[-1].donor
    assert tags["pbt_lineage"] == " > ".join(trial.lineage)
    assert tags["pbt_history"].splitlines()[0] == exploit.reason
    assert tags["pbt.generator_lr"] == str(trial.parameters["generator_lr"])
    assert rates[0] == trial.proposed["generator_lr"]
    assert rates[-1] == trial.parameters["generator_lr"]
    assert len(set(rates)) == len(trial.exploits) + 1


def test_retrainings_repeat_the_schedule_of_their_finalist(undisturbed):
    _, _, record = undisturbed
    finalist = next(trial for trial in record.finalists() if trial.exploits)
    retraining = record[f"{finalist.id}-seed-{SETTINGS['seed'] + 1}"]
    config = config_of(record.plan, retraining)

    assert retraining.retrained == finalist.schedule
    assert retraining.parameters == finalist.parameters
    assert config.course.origin is None
    assert config.course.points is None
    assert config.seed == SETTINGS["seed"] + 1
    begins = [0, *(change.images for change in config.course.changes)]
    assert begins == [item.images for item in finalist.schedule]
    assert config.course.changes[-1].parameters == finalist.parameters
    # The networks are those of the first of its ancestors, throughout.
    fixed = {n: v for n, v in finalist.parameters.items() if n not in ("generator_lr", "critic_lr")}
    for item in finalist.schedule:
        assert {n: v for n, v in item.parameters.items() if n in fixed} == fixed


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (lambda e: e.update(donor="../00000"), "no trial to continue from"),
        (lambda e: e.update(images=999), "exploits must follow evaluations"),
        (lambda e: e.update(schedule=[]), "schedule of an exploit must begin at image 0"),
        (lambda e: e.update(other=1), "Extra inputs are not permitted"),
    ],
)
def test_damaged_exploit_is_one_sentence(tmp_path, undisturbed, edit, fault):
    _, _, record = undisturbed
    output = tmp_path / "copy"
    shutil.copytree(record.output.local, output)
    trial, _ = first_exploit(record)
    path = output / "trials" / trial.id / "trial.json"
    content = json.loads(path.read_text())
    edit(content["trial"]["exploits"][0])
    for file in (path, backup_of(Location.of(path)).local):
        file.write_text(json.dumps(content))

    with pytest.raises(SearchError, match=rf"trial\.json is damaged.*{fault}"):
        SearchRecord.load(output)


def test_trials_of_an_architecture_have_equal_images_whatever_they_cost(tmp_path):
    record = record_of(tmp_path, architectures=("wgan",), scheduler="pbt", images=None)
    budgets = record.plan.budgets(64)
    sizes = [
        record.plan.fix_budget(TrialConfig("wgan", {"width": width}), budgets).budget
        for width in (32, 128)
    ]

    assert isinstance(sizes[0], TrialBudget)
    assert sizes[0] == sizes[1]
    assert budgets.fix(TrialConfig("wgan", {"width": 32})).budget != sizes[0]


def test_search_without_anything_to_explore_is_one_sentence(tmp_path):
    fixed = [f"wgan.{n}=1e-4" for n in ("generator_lr", "critic_lr")]
    fixed += ["wgan.l1_weight=100", "wgan.perceptual_weight=10"]
    plan = record_of(tmp_path, **SETTINGS | {"fix": tuple(fixed)}).plan

    with pytest.raises(SearchError, match="search space of wgan has none that is searched"):
        plan.check()


def test_events_happen_in_a_virtual_search_and_it_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    settings = SETTINGS | {"trials": 24, "images": 10, "finalists": 0, "slots": 2}
    settings |= {"architectures": ("wgan", "gan"), "sampler": "random", "seed": 3}
    record = record_of(tmp_path, **settings)
    seconds = {"wgan": 100.0, "gan": 70.0}
    assert not VirtualSearch(record, seconds, ends_at=500.0).run()
    assert VirtualSearch(SearchRecord.load(tmp_path), seconds, started=500.0).run()
    record = SearchRecord.load(tmp_path)
    exploits = [(t, e) for t in record.trials.values() for e in t.exploits]

    assert {trial.architecture for trial, _ in exploits} == {"wgan", "gan"}
    for trial, exploit in exploits:
        assert record[exploit.donor].architecture == trial.architecture
    assert any(len(trial.lineage) > 2 for trial, _ in exploits)
    assert {trial.status for trial in record.trials.values()} == {"completed"}
    for trial, _ in exploits:  # the weights taken over were better
        assert record.objective_values(trial)[0] < trial.history[0].metrics["fid"]
