"""How long each trial trains: counted costs, equal compute, and budgets that stay as they are."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from summaries import evaluate, record_of
from tiny_settings import SIZE, TINY, random_batches

import search_spaces
from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.errors import SearchError
from thermal_search.training import meta_results, operations
from thermal_search.training.operations import Cost, Operations, cost_of
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step
from thermal_search.training.trial_plan import TrialBudget, TrialEvaluation
from thermal_search.tuning.budgets import Budgets, Calibration, Speed, equal_images
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.rungs import Rungs
from thermal_search.tuning.schedulers import SCHEDULERS, build_scheduler
from thermal_search.tuning.schedulers.asha import ASHA
from thermal_search.tuning.slots.messages import REPORT, TrialConfig, TrialReport
from thermal_search.tuning.space import ConditionalSpace
from thermal_search.tuning.trial_source import proposed_trials, retrainings

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.mark.parametrize("name", ["pix2pix", "cyclegan", "progressive_gan", "wgan_gp"])
def test_cost_is_that_of_a_real_step(name):
    translator = build(name, SIZE, TINY[name])
    translator.begin_step(1, 1)
    with Operations() as operations:
        train_step(
            translator,
            build_optimizers(translator),
            random_batches(batch=translator.config.batch_size_at(1.0)),
            group=WorkerGroup(),
            autocast=torch.autocast("cpu", enabled=False),
        )
    cost = cost_of(name, SIZE, TINY[name])

    images = translator.config.batch_size_at(1.0)
    assert cost.at_full_size == pytest.approx(operations.count / images, rel=0.01)


def test_growing_networks_cost_less_before_their_full_size():
    cost = cost_of("progressive_gan", 64, TINY["progressive_gan"])

    costs = [operations for _, operations in cost.phases]
    assert len(costs) > 3
    assert costs == sorted(costs)
    assert costs[-1] > 4 * costs[0]
    assert cost.phases[-1][0] == 1.0
    assert cost.done(0.3) < 0.1
    assert cost.done(1.0) == 1.0


def test_a_cost_adds_up_over_its_phases():
    cost = Cost(((0.5, 2.0), (1.0, 6.0)))

    assert (cost.per_image, cost.at_full_size) == (4.0, 6.0)
    assert [cost.done(share) for share in (0.0, 0.5, 0.75, 1.0)] == [0.0, 0.25, 0.625, 1.0]


def test_cheap_costly_and_growing_architectures_get_equal_compute():
    """The default of a search: 200,000 images of pix2pix, or what takes as many operations."""
    budgets = Budgets(64, 200_000)
    space = ConditionalSpace(("cyclegan", "pix2pix", "progressive_gan", "wgan_gp"))
    unit = cost_of("pix2pix", 64, search_spaces.load("pix2pix").published).per_image
    for name in space.spaces:
        config = budgets.fix(space.published(name))
        assert config.budget
        operations = config.budget.images * budgets.cost(config).per_image
        assert operations == pytest.approx(200_000 * unit, rel=0.01), name
        assert config.budget.images == 10 * config.budget.evaluate_every
        assert bool(config.budget.full_size_from) == ARCHITECTURES[name].grows
    assert budgets.fix(space.published("pix2pix")).budget == TrialBudget(
        images=200_000, evaluate_every=20_000
    )


def test_a_slow_architecture_gets_fewer_images():
    speeds = {
        name: Speed(
            seconds_per_operation=seconds, seconds_per_image=1.0, memory_bytes=1, batch_size=1
        )
        for name, seconds in {"pix2pix": 1e-12, "gan": 3e-12}.items()
    }
    calibration = Calibration(size=64, compute=1e6, device="CPU", speeds=speeds, failures={})
    config = TrialConfig("gan", search_spaces.load("gan").published)
    counted = Budgets(64, 1e6).fix(config).budget
    measured = Budgets(64, 1e6, calibration).fix(config).budget

    assert counted
    assert measured
    assert measured.images == pytest.approx(counted.images / 3, rel=0.001)


def test_budgets_stay_as_they_are(tmp_path):
    record = record_of(tmp_path, images=None, trials=3, architectures=("gan", "pix2pix"), seeds=1)
    budgets = record.plan.budgets(64)
    first, second = itertools.islice(proposed_trials(record, budgets), 2)
    for trial in (first, second):
        evaluate(record, trial.id, 5.0)
        record.end(trial.id, "completed", "")
    assert first.budget != second.budget
    loaded = SearchRecord.load(tmp_path)
    # Also with other budgets: those of another release, perhaps.
    (third,) = proposed_trials(loaded, Budgets(64, 1_000))

    assert [loaded[id].budget for id in ("00000", "00001")] == [first.budget, second.budget]
    assert third.budget.images < 10_000 < second.budget.images


def test_a_retraining_has_the_budget_of_its_finalist(tmp_path):
    record = record_of(tmp_path, images=None, trials=1, finalists=1, seeds=2)
    (trial,) = proposed_trials(record, Budgets(64, 777))
    evaluate(record, trial.id, 5.0)
    record.end(trial.id, "completed", "")

    assert [again.budget for again in retrainings(record)] == [trial.budget] * 2


def test_work_of_growing_networks_is_done_late(tmp_path):
    """At the published point exactly; elsewhere by how long the networks grow."""
    record = record_of(tmp_path, images=None)
    budgets, space = Budgets(64, 1_000), ConditionalSpace(("progressive_gan", "stylegan"))
    config = space.published("progressive_gan")
    trial = record.add(0, budgets.fix(config))
    budget = trial.budget
    for count in range(1, 10):
        trial.images = count * budget.evaluate_every
        assert budgets.done(trial) == pytest.approx(
            budgets.cost(config).done(trial.share), abs=0.02
        )
        assert budgets.done(trial) < trial.share
    early = replace(budget, full_size_from=budget.images // 5)
    half = trial.model_copy(update={"images": budget.images // 2})
    assert budgets.done(half) < budgets.done(half.model_copy(update={"budget": early})) < 0.5

    fixed = replace(space.published("stylegan"), parameters={"growing": False})
    assert equal_images(fixed, 1000, 100).full_size_from == 0


def test_a_search_with_equal_images_has_one_budget(tmp_path):
    record = record_of(tmp_path, images=300, evaluate_every=100, trials=2)

    assert record.plan.budgets(64) is None
    assert [trial.budget for trial in proposed_trials(record)] == [
        TrialBudget(images=300, evaluate_every=100)
    ] * 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"images": 5, "compute": 5}, "--compute must not come with --images"),
        ({"images": None, "evaluate_every": 5}, "--evaluate-every must come with --images"),
        ({"hours": 0}, "--hours must be above 0"),
    ],
)
def test_contradictory_budgets_are_one_sentence(tmp_path, settings, sentence):
    with pytest.raises(SearchError, match=sentence):
        record_of(tmp_path, **settings)


def test_rungs_are_shares_of_the_own_budget():
    cheap = TrialBudget(images=100_000, evaluate_every=10_000)
    growing = TrialBudget(images=2_000, evaluate_every=200, full_size_from=1_300)

    assert Rungs.of(cheap, 3.0).shares == pytest.approx([0.1, 0.3, 0.9])
    # All architectures have the further ones in common.
    assert Rungs.of(growing, 3.0).shares == pytest.approx([0.7, 0.9])


def decide(scheduler, trial, evaluations, value):
    """The decision on a trial's evaluation of this number."""
    tune_trial = SimpleNamespace(trial_id=trial.id, config={"architecture": trial.architecture})
    images = evaluations * trial.budget.evaluate_every
    evaluation = TrialEvaluation(
        images=images,
        metrics={"fid": value},
        losses={},
        seconds=1.0,
        images_per_second=1.0,
        grid=None,
    )
    report = TrialReport(status="running", evaluation=evaluation)
    scheduler.on_trial_add(None, tune_trial)
    return scheduler.on_trial_result(
        None, tune_trial, {"status": "running", "images": images, REPORT: report}
    )


def test_growing_networks_are_compared_at_full_size_first(tmp_path):
    record = record_of(tmp_path, images=None, reduction=3.0)
    scheduler = ASHA(record)
    budget = TrialBudget(images=1000, evaluate_every=100, full_size_from=650)
    config = replace(TrialConfig("progressive_gan", {}), budget=budget)
    trials = [record.add(number, config) for number in range(3)]
    for evaluations in range(1, 7):
        for trial, value in zip(trials, (1.0, 2.0, 99.0), strict=True):
            assert decide(scheduler, trial, evaluations, value) == "CONTINUE"

    decisions = [decide(scheduler, t, 7, v) for t, v in zip(trials, (1.0, 2.0, 99.0), strict=True)]
    assert decisions == ["CONTINUE", "STOP", "STOP"]


def test_asha_compares_all_architectures_at_the_rungs_that_they_have_in_common(tmp_path):
    record = record_of(tmp_path, images=None, reduction=3.0)
    scheduler = ASHA(record)
    at_once = TrialBudget(images=1000, evaluate_every=100)
    growing = TrialBudget(images=500, evaluate_every=50, full_size_from=300)
    architectures = (("gan", at_once), ("wgan", at_once), ("stylegan", growing))
    gan, wgan, stylegan = (
        record.add(number, replace(TrialConfig(name, {}), budget=budget))
        for number, (name, budget) in enumerate(architectures)
    )

    # The first rung is of an architecture alone.
    assert [decide(scheduler, gan, 1, 50.0), decide(scheduler, wgan, 1, 90.0)] == ["CONTINUE"] * 2
    assert [decide(scheduler, gan, 3, 40.0), decide(scheduler, wgan, 3, 60.0)] == [
        "CONTINUE", "STOP",
    ]  # fmt: skip
    assert scheduler.stop_reasons[wgan.id] == (
        "at 300 images its fid of 60 is behind 40, that of the only other trial that came so far"
    )
    # Its networks were growing at that rung, and are compared from the next one on.
    assert decide(scheduler, stylegan, 3, 99.0) == "CONTINUE"
    assert decide(scheduler, stylegan, 6, 99.0) == "CONTINUE"
    assert decide(scheduler, gan, 9, 30.0) == "CONTINUE"
    assert decide(scheduler, stylegan, 9, 31.0) == "STOP"


@pytest.mark.parametrize("name", SCHEDULERS)
def test_no_scheduler_stops_networks_that_grow(tmp_path, name):
    record = record_of(tmp_path, images=None, scheduler=name)
    scheduler = build_scheduler(record)
    budget = TrialBudget(images=1000, evaluate_every=100, full_size_from=650)
    trials = [
        record.add(number, replace(TrialConfig("progressive_gan", {}), budget=budget))
        for number in range(5)
    ]
    decisions = [
        {decide(scheduler, trial, count, 10.0**trial.number) for trial in trials}
        for count in range(1, 8)
    ]

    assert decisions[:6] == [{"CONTINUE"}] * 6
    assert decisions[6] == {"CONTINUE", "STOP"}


def test_a_setting_that_cannot_be_trained_has_a_budget_too():
    """Its trial says why it fails; the search continues."""
    budgets = Budgets(64, 1000)
    broken = TrialConfig("pix2pix", {"batch_size": 0})

    assert budgets.fix(broken).budget == budgets.fix(budgets.published("pix2pix")).budget
    with pytest.raises(SearchError, match=r"What pix2pix costs cannot be counted .*pass --images"):
        Budgets(64, 1000, published=lambda name: broken).cost(broken)


def test_a_stop_says_why_in_numbers(tmp_path):
    record = record_of(tmp_path, images=None, reduction=3.0)
    scheduler = ASHA(record)
    for number, value in enumerate((198.0, 201.0, 190.0, 212.3)):
        # Equal shares of budgets that differ.
        budget = TrialBudget(images=1000 * (number + 1), evaluate_every=100 * (number + 1))
        trial = record.add(number, replace(TrialConfig("pix2pix", {}), budget=budget))
        decision = decide(scheduler, trial, 1, value)

    assert decision == "STOP"
    assert scheduler.stop_reasons["00003"] == (
        "at 400 images its fid of 212.3 is behind 195.3, the best third of the 3 pix2pix trials "
        "that came so far"
    )


@pytest.mark.parametrize("architecture", ["progressive_gan", "wgan_gp"])
def test_remembered_results_do_not_change_a_count(architecture, monkeypatch):
    parameters = tuple(sorted({"batch_size": 2}.items()))
    monkeypatch.setattr(meta_results, "_known_results", {})
    monkeypatch.setattr(meta_results, "MAX_KNOWN_RESULTS", 0)
    computed = operations._cost_of.__wrapped__(architecture, 32, parameters)
    monkeypatch.setattr(meta_results, "MAX_KNOWN_RESULTS", 10**6)
    operations._cost_of.__wrapped__(architecture, 32, parameters)

    assert meta_results._known_results
    assert operations._cost_of.__wrapped__(architecture, 32, parameters) == computed
