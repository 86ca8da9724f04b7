"""The record of a search, edited by hand or damaged: read, or refused in one sentence."""

import contextlib
import json
import shutil

import pytest
from hypothesis import given, settings
from json_edits import FAST, edits, ends_in_a_sentence
from summaries import record_of, run_trial

from thermal_search import export
from thermal_search.documents import backup_of
from thermal_search.errors import SearchError, ThermalSearchError
from thermal_search.storage import Location
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.ownership import Claim, require_free
from thermal_search.tuning.proposals import Proposals
from thermal_search.tuning.ranking_text import compare_trial, describe
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers.asha import ASHA
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.messages import TrialReport

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

TRIAL, RETRAINING = "trials/00001/trial.json", "retrainings/00001-seed-1/trial.json"
FILES = ["search.json", "baselines.json", TRIAL, RETRAINING]
BASELINES = {"inverted_grey": {"fid": 60.0, "l1": 0.5, "images": 4}}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a search that has ended, with a final ranking."""
    output = tmp_path_factory.mktemp("searched") / "output"
    record = record_of(output, trials=2, images=10, evaluate_every=1, finalists=1, seeds=1)
    run_trial(record, {"fid": 50.0, "l1": 0.4}, status="stopped", baselines=BASELINES)
    best = run_trial(record, {"fid": 40.0, "l1": 0.4}, {"fid": 30.0, "l1": 0.3})
    retraining = record.add_retraining(best, 1)
    evaluation = TrialEvaluation(10, {"fid": 35.0, "l1": 0.3}, {}, 1.0, 1.0, None)
    tested = {"fid": 36.0, "l1": 0.3}
    report = TrialReport(
        status="completed", evaluation=evaluation, test_metrics=tested, test_baselines=BASELINES
    )
    record.add_evaluation(retraining.id, report)
    record.end(retraining.id, "completed", "")
    return output


@pytest.fixture
def copy(searched, tmp_path):
    return shutil.copytree(searched, tmp_path / "copy")


def read_again(output):
    """What resuming a search, ranking it and exporting from it read of its record."""
    plan = plan_from_settings(SearchSettings(output=output), resume=True)
    with contextlib.suppress(ThermalSearchError):  # there is no dataset
        plan.check()
    record = SearchRecord.of(plan)
    assert type(record.summary).model_validate_json(record.summary.model_dump_json())
    describe(record)
    ASHA(record)
    Proposals(record, plan.architectures).propose()
    export.best_trial(output)


def test_whole_record_is_read(copy):
    read_again(copy)

    assert export.best_trial(copy).record.id == "00001-seed-1"


@pytest.mark.parametrize("name", FILES)
def test_edited_file_is_read_or_refused_in_a_sentence(copy, name):
    content = json.loads((copy / name).read_text())
    backup_of(Location.of(copy / name)).delete()

    @settings(FAST, max_examples=40)
    @given(edits(content))
    def holds(edited):
        (copy / name).write_bytes(edited)
        ends_in_a_sentence(lambda: read_again(copy))

    holds()


def changed(file, change):
    """Changes a JSON file in place, and its backup."""
    content = json.loads(file.read_text())
    change(content)
    for path in (Location.of(file), backup_of(Location.of(file))):
        path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (TRIAL, lambda c: c["trial"].update(number=10**9), "number 1000000000"),
        (TRIAL, lambda c: c["trial"].update(id="00007"), "file of '00007'"),
        (TRIAL, lambda c: c["trial"].update(history=[], images=0), "must have evaluations"),
        (TRIAL, lambda c: c["trial"]["history"][0]["metrics"].pop("fid"), "must have fid"),
        (TRIAL, lambda c: c["trial"]["history"][1]["metrics"].update(l1=1e308), "at most 1e.100"),
        (RETRAINING, lambda c: c["trial"].update(seed=5), "file of '00001-seed-1'"),
        (RETRAINING, lambda c: c["trial"]["test_metrics"].pop("fid"), "must have fid"),
        ("baselines.json", lambda c: c["validation"]["inverted_grey"].pop("fid"), "have fid"),
        ("baselines.json", lambda c: c["test"]["inverted_grey"].pop("fid"), "have fid"),
        ("search.json", lambda c: c.update(objective="hue"), "unknown metric"),
        ("search.json", lambda c: c.update(features="vgg"), "Unknown features"),
    ],
)
def test_what_does_not_belong_together_is_refused(copy, name, change, fault):
    changed(copy / name, change)
    with pytest.raises(ThermalSearchError, match=fault):
        read_again(copy)


def test_metric_that_one_evaluation_lacks_is_left_out(copy):
    changed(copy / TRIAL, lambda c: c["trial"]["history"][0]["metrics"].pop("l1"))
    changed(copy / "search.json", lambda c: c.update(average_last=2))

    record = SearchRecord.load(copy)

    (comparison,) = compare_trial(record, record["00001"])
    assert comparison.measures == "distance"
    assert "L1" not in comparison.sentence()


def test_edited_claim_of_an_owner_is_read_or_refused_in_a_sentence(tmp_path):
    claim = json.loads(Claim.new().model_dump_json())

    @FAST
    @given(edits(claim))
    def holds(edited):
        (tmp_path / "owner-0.json").write_bytes(edited)
        ends_in_a_sentence(lambda: require_free(Location.of(tmp_path)))

    holds()


@pytest.mark.parametrize(
    "change", [{"process": 10**30}, {"process": -1}, {"began": 1e308}, {"renewed": -1.0}]
)
def test_impossible_claim_is_refused(tmp_path, change):
    claim = json.loads(Claim.new().model_dump_json()) | {"renewed": 9e10} | change
    (tmp_path / "owner-0.json").write_text(json.dumps(claim))
    with pytest.raises(SearchError, match="remove the file if no search runs"):
        require_free(Location.of(tmp_path))
