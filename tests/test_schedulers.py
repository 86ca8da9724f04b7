"""Which trials each scheduler stops, what it says, and that a resumed search stops the same. No
Ray processes."""

import itertools
import os
import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from summaries import record_of, run_trial

from thermal_search.errors import SearchError
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.schedulers import SCHEDULERS, build_scheduler
from thermal_search.tuning.schedulers.per_architecture import PerArchitectureScheduler
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport

STOP, IMAGES, TRIALS = TrialScheduler.STOP, 9, 14


@pytest.fixture(autouse=True)
def quick_writes(monkeypatch):
    """Nothing here is about a machine that loses power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


class Loop:
    """What Ray Tune does with some slots: trials whose learning curves follow from their number."""

    def __init__(self, record, slots=3):
        self.record, self.slots = record, slots
        self.scheduler = build_scheduler(record)
        self.waiting = [trial for trial in record.trials.values() if trial.status == "running"]
        self.running = {}
        self.lengths = {}

    def run(self, reports):
        """Handles so many new evaluations, or all."""
        for count in itertools.count():
            while len(self.running) < self.slots and (trial := self._next()):
                tune_trial = SimpleNamespace(
                    trial_id=trial.id, config={"architecture": trial.architecture}
                )
                self.running[trial.id] = tune_trial
                self.lengths[trial.id] = 0
                self.scheduler.on_trial_add(None, tune_trial)
            if not self.running or count == reports:
                return
            # The longest first, so that a resumed loop replays what was there before anything new.
            id = min(self.running, key=lambda id: (self._is_new(id), self.lengths[id], id))
            self._report(id)

    def _is_new(self, id):
        return self.lengths[id] >= len(self.record[id].history)

    def _next(self):
        if self.waiting:
            return self.waiting.pop(0)
        number = len(self.record.trials)
        if number < self.record.plan.trials:
            architecture = self.record.plan.architectures[number % 2]
            return self.record.add(number, TrialConfig(architecture, {"number": number}))
        return None

    def _report(self, id):
        self.lengths[id] += 1
        images, trial = self.lengths[id], self.running[id]
        quality = random.Random(id).random()
        evaluation = TrialEvaluation(
            images=images,
            metrics={"fid": 100 * quality + random.Random(f"{id} {images}").random() * 60 / images},
            losses={},
            seconds=1.0,
            images_per_second=1.0,
            grid=None,
        )
        status = "completed" if images == IMAGES else "running"
        report = TrialReport(status=status, evaluation=evaluation)
        result = {"status": status, "images": images, REPORT: report}
        decision = self.scheduler.on_trial_result(None, trial, result)
        self.record.add_evaluation(id, report)
        if decision == STOP or status == "completed":
            self.scheduler.on_trial_complete(None, trial, result)
            reasons = getattr(self.scheduler, "stop_reasons", {})
            if status == "running":
                self.record.end(id, "stopped", reasons[id])
            else:
                self.record.end(id, "completed", "")
            del self.running[id]


def begin(folder, scheduler, **changes):
    settings = {"trials": TRIALS, "images": IMAGES, "evaluate_every": 1, "average_last": 2}
    settings |= {"architectures": ("pix2pix", "wgan"), "scheduler": scheduler}
    return record_of(folder, **settings | changes)


def ends(record):
    return [(t.id, t.status, t.images, t.reason) for t in record.trials.values()]


@pytest.mark.parametrize("scheduler", [*SCHEDULERS, "none"])
def test_resumed_search_stops_what_an_undisturbed_one_does(tmp_path, scheduler):
    whole = begin(tmp_path / "whole", scheduler)
    Loop(whole, slots=1).run(None)
    parts = begin(tmp_path / "parts", scheduler)
    Loop(parts, slots=1).run(7)
    while any(t.status == "running" for t in parts.trials.values()) or len(parts.trials) < TRIALS:
        parts = SearchRecord.load(tmp_path / "parts")
        # Each part replays what its unfinished trial has, and continues for 5 more.
        Loop(parts, slots=1).run(5 + IMAGES)

    assert ends(parts) == ends(whole)
    statuses = {trial.status for trial in whole.trials.values()}
    assert statuses == ({"completed"} if scheduler == "none" else {"completed", "stopped"})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_rules_filled_from_the_record_hold_what_the_running_ones_held(tmp_path, scheduler):
    """Three trials at once, some of them unfinished: their last evaluation is decided again."""
    record = begin(tmp_path, scheduler)
    loop = Loop(record)
    loop.run(45)
    again = build_scheduler(SearchRecord.load(tmp_path))

    assert any(trial.status == "running" for trial in record.trials.values())
    held = contents(loop.scheduler)
    assert contents(again) == held
    assert any(len(trials) > 2 for trials in held.values())


def contents(scheduler: PerArchitectureScheduler):
    """What each rule knows of each trial, without the last evaluation of unfinished ones."""
    known = {}
    for trial in scheduler.record.trials.values():
        history = trial.history[: -1 if trial.status == "running" else None]
        known[trial.id] = history[-1].images if history else 0
    found = {}
    for rung, values in getattr(scheduler, "common", {}).items():
        found[rung] = {id: value for id, value in values.items() if known[id] >= rung}
    for name, rule in scheduler.rules.items():
        if first := getattr(rule, "first", None):
            found[name] = {id: value for id, value in first.items() if known[id]}
        for number, bracket in enumerate(getattr(rule, "_brackets", ())):
            for rung, values in bracket._rungs:
                items = {id: value for id, value in values.items() if known[id] >= rung}
                found[name, number, rung] = items
        for key, results in getattr(rule, "_results", {}).items():
            items = [(item["position"], item["objective"]) for item in results]
            items = [item for item in items if item[0] <= known[key.trial_id]]
            found.setdefault(name, {})[key.trial_id] = items
    return {key: {id: item for id, item in items.items() if item} for key, items in found.items()}


def decide(record, value, images=1):
    """The decision on the first evaluation of a new trial, and the reason."""
    trial = record.add(len(record.trials), TrialConfig("pix2pix", {}))
    scheduler = build_scheduler(record)
    tune_trial = SimpleNamespace(trial_id=trial.id, config={"architecture": "pix2pix"})
    scheduler.on_trial_add(None, tune_trial)
    evaluation = TrialEvaluation(
        images=images,
        metrics={"fid": value},
        losses={},
        seconds=1.0,
        images_per_second=1.0,
        grid=None,
    )
    report = TrialReport(status="running", evaluation=evaluation)
    result = {"status": "running", "images": images, REPORT: report}
    decision = scheduler.on_trial_result(None, tune_trial, result)
    return decision, scheduler.stop_reasons.get(trial.id)


def test_asha_says_what_a_trial_fell_behind(tmp_path):
    record = record_of(tmp_path, images=9, evaluate_every=1)
    for value in (190.0, 200.0, 230.0, 250.0):
        run_trial(record, value)

    # The best third of four: between the second and the first.
    assert decide(record, 212.34) == (
        STOP,
        "at 1 images its fid of 212.3 is behind 200, the best third of the 4 pix2pix trials that "
        "came so far",
    )
    assert decide(record, 150.0) == ("CONTINUE", None)


def test_numbers_that_are_close_have_as_many_digits_as_show_which_is_larger(tmp_path):
    record = record_of(tmp_path, images=9, evaluate_every=1, reduction=2.0)
    run_trial(record, 200.0001)

    assert decide(record, 200.0002)[1] == (
        "at 1 images its fid of 200.0002 is behind 200.0001, that of the only other pix2pix trial "
        "that came so far"
    )


def test_median_says_what_a_trial_fell_behind(tmp_path):
    record = record_of(tmp_path, images=9, evaluate_every=1, scheduler="median")
    for value in (190.0, 200.0):
        run_trial(record, value)
    assert decide(record, 900.0) == ("CONTINUE", None)  # two are too few
    run_trial(record, 210.0)

    assert decide(record, 212.0) == (
        STOP,
        "at 1 images its best fid of 212 is behind 200, the median of the means of the 3 pix2pix "
        "trials that came so far",
    )


def test_hyperband_spreads_trials_over_brackets_that_begin_later(tmp_path):
    scheduler = build_scheduler(
        record_of(tmp_path, images=27, evaluate_every=1, scheduler="hyperband")
    )
    rule = scheduler.create_rule(Rungs(1, 27, 3.0))
    brackets = [rule.bracket_of(f"{number:05d}") for number in range(1000)]

    assert [min(rung for rung, _ in bracket._rungs) for bracket in rule._brackets] == [1, 3, 9]
    # 3 : 1.5 : 1, as Hyperband has it for a reduction of 3.
    assert [brackets.count(index) for index in range(3)] == pytest.approx([545, 273, 182], abs=40)


def test_hyperband_of_few_evaluations_has_no_more_brackets_than_rungs(tmp_path):
    record = record_of(tmp_path, images=4, evaluate_every=2, scheduler="hyperband")

    assert len(build_scheduler(record).create_rule(Rungs(1, 2, 3.0))._brackets) == 1


def test_two_objectives_have_no_scheduler(tmp_path):
    settings = {"data": tmp_path, "output": tmp_path / "o", "objective": "pareto:fid,l1"}

    assert plan_from_settings(SearchSettings(**settings)).scheduler == "none"
    plan = plan_from_settings(SearchSettings(**settings, scheduler="median"))
    with pytest.raises(SearchError, match="--scheduler median compares trials by one objective"):
        plan.check()
    record = record_of(tmp_path / "old", objective="pareto:fid,l1", scheduler="asha")
    assert type(build_scheduler(record)) is FIFOScheduler
