"""What a record ranks, and how finalists are decided between. No Ray."""

import json

import pytest
from PIL import Image

from thermal_search.errors import SearchError
from thermal_search.tuning.final_ranking import decide, evaluator, finalists, told
from thermal_search.tuning.objective import parse_objective
from thermal_search.tuning.pareto_plot import draw_pareto_front
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.request import plan_from_flags
from thermal_search.tuning.text_report import describe


def record_of(folder, objective="fid", average_last=1):
    return SearchRecord(
        folder,
        "fid",
        "inception",
        objective=parse_objective(objective, "inception"),
        average_last=average_last,
        protocol={"images": 9},
    )


def evaluate(record, id, *values, baselines=None, test=None):
    for number, value in enumerate(values, start=1):
        measured = value if isinstance(value, dict) else {"fid": value}
        result = {"images": number, "seconds": 1.0, "fid": measured["fid"], "beside": measured}
        if test and number == len(values):
            result["test"] = {"fid": test, "l1": 1.0}
            result["test_baselines"] = {"inverted_grey": {"fid": 31.0, "l1": 0.5}}
        record.evaluate(id, result | ({"baselines": baselines} if baselines else {}))


def try_out(record, id, *values, status="completed", **settings):
    record.start(id, "pix2pix", {"width": 8})
    evaluate(record, id, *values, **settings)
    record.end(id, status, "")


def retrain(record, id, configuration, seed, *values, status="completed", **settings):
    record.start_retraining(id, "pix2pix", {"width": 8}, configuration=configuration, seed=seed)
    evaluate(record, id, *values, **settings)
    record.end(id, status, "")


def test_the_luckiest_evaluation_does_not_win(tmp_path):
    record = record_of(tmp_path, average_last=2)
    try_out(record, "lucky", 50.0, 9.0, 60.0, 50.0)
    try_out(record, "steady", 60.0, 50.0, 40.0, 40.0)

    assert [trial.id for trial in record.ranking()] == ["steady", "lucky"]
    assert record.trials["lucky"].worth == {"fid": 55.0}
    assert record.trials["lucky"].checkpoint == "trials/lucky/generator.pt"


def test_few_evaluations_of_a_stopped_trial_do_not_lead(tmp_path):
    record = record_of(tmp_path, average_last=2)
    try_out(record, "lucky", 10.0, status="stopped")
    assert record.best.id == "lucky"  # nothing else is known yet

    try_out(record, "behind", 90.0, 60.0, 50.0)
    try_out(record, "ahead", 80.0, 40.0, 30.0)
    try_out(record, "broken", 8.0, 7.0, status="diverged")
    record.start("begun", "pix2pix", {})
    evaluate(record, "begun", 5.0)
    assert [trial.id for trial in record.ranking()] == [
        "ahead",
        "behind",
        "begun",
        "broken",
        "lucky",
    ]
    assert json.loads((tmp_path / "summary.json").read_text())["best"] == "ahead"
    assert describe(record).splitlines()[1].split()[3] == "ahead"


def test_a_stopped_trial_is_on_no_front_beside_whole_ones(tmp_path):
    record = record_of(tmp_path, "pareto:fid,l1")
    try_out(record, "lucky", {"fid": 1.0, "l1": 1.0}, status="failed")
    assert record.front() == ["lucky"]

    try_out(record, "whole", {"fid": 3.0, "l1": 3.0})
    assert record.front() == ["whole"]
    assert draw_pareto_front(record)


def test_a_record_is_found_again_as_it_was(tmp_path):
    record = record_of(tmp_path, "fid+2*l1", average_last=2)
    try_out(record, "a", {"fid": 3.0, "l1": 1.0}, {"fid": 5.0, "l1": 2.0})
    retrain(record, "b", "a", 7, {"fid": 4.0, "l1": 2.0}, test=3.0)
    decide(record, 1)
    before = json.loads((tmp_path / "summary.json").read_text())
    SearchRecord.load(tmp_path).save()

    assert json.loads((tmp_path / "summary.json").read_text()) == before
    assert before["trials"][0]["worth"] == {"fid+2*l1": 7.0}
    assert before["protocol"] == {"images": 9}


def test_a_trial_that_does_not_beat_inverted_grey_is_marked(tmp_path):
    record = record_of(tmp_path)
    try_out(record, "early", 30.0)
    assert record.trials["early"].beats_inverted_grey is None
    baselines = {"inverted_grey": {"fid": 40.0}, "train": {"fid": 5.0}}
    try_out(record, "late", 50.0, baselines=baselines)

    assert record.trials["early"].beats_inverted_grey is True
    assert record.trials["late"].beats_inverted_grey is False
    said = describe(record).splitlines()
    assert "does not beat" not in said[1]
    assert said[2].endswith("completed, does not beat inverted grey")
    assert "inverted grey 40.00, train 5.00" in "\n".join(said)


def test_finalists_are_the_best_of_those_that_used_their_whole_budget(tmp_path):
    record = record_of(tmp_path)
    for id, value, status in [("a", 9, "completed"), ("b", 1, "stopped"), ("c", 2, "diverged"),
                              ("d", 5, "completed"), ("e", 7, "completed")]:  # fmt: skip
        try_out(record, id, float(value), status=status)

    assert [trial.id for trial in finalists(record, 2)] == ["d", "e"]


def test_finalists_rank_by_the_mean_of_further_seeds_and_the_test_split_has_no_say(tmp_path):
    record = record_of(tmp_path)
    try_out(record, "lucky", 10.0)
    try_out(record, "sound", 20.0)
    retrain(record, "l1", "lucky", 1, 30.0, test=1.0)
    retrain(record, "l2", "lucky", 2, 26.0, test=2.0)
    retrain(record, "s1", "sound", 1, 21.0, test=33.0)
    retrain(record, "s2", "sound", 2, 19.0, test=31.0)
    final_ranking = evaluator(record)

    assert final_ranking["configuration"] == "sound"
    assert final_ranking["generator"] == "s2"
    assert final_ranking["beats_inverted_grey"] is False
    assert (final_ranking["mean"], final_ranking["spread"]) == (20.0, pytest.approx(2**0.5))
    assert final_ranking["test"]["fid"] == {"mean": 32.0, "spread": pytest.approx(2**0.5)}
    assert [entry["values"] for entry in final_ranking["ranking"]] == [[21.0, 19.0], [30.0, 26.0]]


def test_a_configuration_that_broke_with_a_seed_comes_after_one_that_did_not(tmp_path):
    record = record_of(tmp_path)
    retrain(record, "a1", "a", 1, 5.0)
    retrain(record, "a2", "a", 2, 4.0, status="diverged")
    retrain(record, "b1", "b", 1, 50.0)
    assert evaluator(record)["configuration"] == "b"

    record.end("b1", "failed", "out of memory")
    assert evaluator(record)["configuration"] == "a"
    record.end("a1", "diverged", "")
    assert evaluator(record) is None


def test_there_is_no_verdict_before_every_finalist_has_ended(tmp_path):
    record = record_of(tmp_path)
    retrain(record, "a1", "a", 1, 5.0)
    record.start_retraining("b1", "pix2pix", {}, configuration="b", seed=1)
    assert not decide(record, 2)
    assert "No final_ranking yet" in describe_with_trial(record)

    record.end("b1", "failed", "")
    assert not decide(record, 3)  # one has not begun
    assert decide(record, 2)
    values, marks = told(record)
    assert values == {"verdict_mean": 5.0}
    assert marks["final_ranking"] == "a1"
    assert "no test split" in describe_with_trial(record)


def describe_with_trial(record):
    try_out(record, "a", 6.0)
    return describe(record)


def test_a_front_is_in_the_record_and_the_ranking(tmp_path):
    record = record_of(tmp_path, "pareto:fid,l1")
    for id, fid, l1 in [("a", 9.0, 1.0), ("b", 1.0, 9.0), ("c", 9.0, 9.0), ("d", 3.0, 3.0)]:
        try_out(record, id, {"fid": fid, "l1": l1})
    on_pareto_front = [
        line.split()[4] for line in describe(record).splitlines() if "on the front" in line
    ]

    assert record.front() == ["b", "d", "a"]
    assert record.best.id == "b"
    assert on_pareto_front == ["b", "d", "a"]
    with Image.open(draw_pareto_front(record)) as image:
        assert len(image.convert("L").getcolors()) > 10
    assert [path.name for path in tmp_path.glob("front*")] == ["front.png"]
    assert record_of(tmp_path).front() == []
    assert draw_pareto_front(record_of(tmp_path, "pareto:fid,l1")) is None


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, (3, 3)),
        ({"trials": 7, "images": 192, "evaluate_every": 64}, (1, 0)),
        ({"evaluate_every": 33_000}, (2, 3)),
        ({"objective": "pareto:fid,l1"}, (3, 0)),
        ({"finalists": 2, "trials": 4}, (3, 2)),
    ],
)
def test_what_is_averaged_and_decided_fits_the_size_of_the_search(tmp_path, flags, expected):
    plan = plan_from_flags({"data": tmp_path, "output": tmp_path} | flags, resume=False)

    assert (plan.average_last, plan.finalists) == expected


def test_resuming_may_not_change_what_is_minimised(tmp_path):
    plan_from_flags({"data": tmp_path, "output": tmp_path}, resume=False).save()
    with pytest.raises(SearchError, match="--objective was fid and is now kid"):
        plan_from_flags({"output": tmp_path, "objective": "kid"}, resume=True)
