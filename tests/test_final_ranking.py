"""The ranking of a search's record, its Pareto front, and the final ranking. No Ray."""

import json

import pytest
from PIL import Image

from thermal_search.errors import SearchError
from thermal_search.evaluation.comparison import comparison_tags
from thermal_search.training.trial import TrialEvaluation
from thermal_search.tuning.final_ranking import (
    finalists,
    finalize,
    mlflow_summary,
    rank_finalists,
)
from thermal_search.tuning.objective import parse_objective
from thermal_search.tuning.pareto_plot import draw_pareto_front
from thermal_search.tuning.ranking_text import compare_trial, describe
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialReport


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
    """Adds one evaluation per value: an FID, or a mapping of metrics."""
    for number, value in enumerate(values, start=1):
        evaluation = TrialEvaluation(
            images=number,
            metrics=value if isinstance(value, dict) else {"fid": value},
            losses={},
            seconds=1.0,
            images_per_second=1.0,
            grid=None,
        )
        is_tested = test is not None and number == len(values)
        report = TrialReport(
            status="running",
            evaluation=evaluation,
            baselines=baselines or {},
            test_metrics={"fid": test, "l1": 1.0} if is_tested else {},
            test_baselines={"inverted_grey": {"fid": 31.0, "l1": 0.5}} if is_tested else {},
        )
        record.add_evaluation(id, report)


def run_trial(record, id, *values, status="completed", **settings):
    record.start(id, "pix2pix", {"width": 8})
    evaluate(record, id, *values, **settings)
    record.end(id, status, "")


def retrain(record, id, finalist, seed, *values, status="completed", **settings):
    record.start_retraining(id, "pix2pix", {"width": 8}, finalist=finalist, seed=seed)
    evaluate(record, id, *values, **settings)
    record.end(id, status, "")


def test_luckiest_evaluation_does_not_win(tmp_path):
    record = record_of(tmp_path, average_last=2)
    run_trial(record, "lucky", 50.0, 9.0, 60.0, 50.0)
    run_trial(record, "steady", 60.0, 50.0, 40.0, 40.0)

    assert [trial.id for trial in record.ranking()] == ["steady", "lucky"]
    assert record.trials["lucky"].objective == {"fid": 55.0}
    assert record.trials["lucky"].checkpoint == "trials/lucky/generator.pt"


def test_stopped_trial_ranks_after_completed_ones(tmp_path):
    record = record_of(tmp_path, average_last=2)
    run_trial(record, "lucky", 10.0, status="stopped")
    assert record.best.id == "lucky"  # there is no other yet

    run_trial(record, "second", 90.0, 60.0, 50.0)
    run_trial(record, "first", 80.0, 40.0, 30.0)
    run_trial(record, "diverged", 8.0, 7.0, status="diverged")
    record.start("running", "pix2pix", {})
    evaluate(record, "running", 5.0)
    ranking = ["first", "second", "running", "diverged", "lucky"]
    assert [trial.id for trial in record.ranking()] == ranking
    assert json.loads((tmp_path / "summary.json").read_text())["best"] == "first"
    assert describe(record).splitlines()[1].split()[3] == "first"


def test_stopped_trial_is_not_on_the_front_once_one_completes(tmp_path):
    record = record_of(tmp_path, "pareto:fid,l1")
    run_trial(record, "lucky", {"fid": 1.0, "l1": 1.0}, status="failed")
    assert record.pareto_front() == ["lucky"]

    run_trial(record, "whole", {"fid": 3.0, "l1": 3.0})
    assert record.pareto_front() == ["whole"]
    assert draw_pareto_front(record)


def test_loaded_record_equals_the_saved_one(tmp_path):
    record = record_of(tmp_path, "fid+2*l1", average_last=2)
    run_trial(record, "a", {"fid": 3.0, "l1": 1.0}, {"fid": 5.0, "l1": 2.0})
    retrain(record, "b", "a", 7, {"fid": 4.0, "l1": 2.0}, test=3.0)
    finalize(record, 1)
    before = json.loads((tmp_path / "summary.json").read_text())
    SearchRecord.load(tmp_path).save()

    assert json.loads((tmp_path / "summary.json").read_text()) == before
    assert before["version"] == 1
    assert before["trials"][0]["objective"] == {"fid+2*l1": 7.0}
    assert before["trials"][0]["history"][1] == {"images": 2, "metrics": {"fid": 5.0, "l1": 2.0}}
    assert before["protocol"] == {"images": 9}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 7}, "has version 7, but this release reads version 1"),
        ({"trials": [{"id": "a"}]}, r"trials\.0\.architecture: Field required"),
        ({"trials": 3}, "trials: Input should be a valid array, not 3"),
        ({"objective": None}, "objective: Input should be a valid string"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
    ],
)
def test_edited_summary_is_one_sentence(tmp_path, change, fault):
    record_of(tmp_path).save()
    path = tmp_path / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(SearchError, match=fault):
        SearchRecord.load(tmp_path)


def test_trial_is_compared_with_the_baselines_measure_by_measure(tmp_path):
    record = record_of(tmp_path, average_last=2)
    baselines = {
        "inverted_grey": {"fid": 40.0, "kid": 0.1, "l1": 55.0},
        "mean_thermal": {"fid": 270.0, "kid": 0.9, "l1": 21.0},
        "ridge": {"fid": 200.0, "kid": 0.8, "l1": 13.0},
        "real_halves": {"fid": 20.0},
    }
    values = [{"fid": 45.0, "kid": 0.1, "l1": l1} for l1 in (15.0, 17.0)]
    run_trial(record, "a", *values, baselines=baselines)
    text = describe(record)

    assert text.splitlines()[1].endswith("completed, beats inverted grey in L1")
    grey = "Against inverted grey: better in L1 (16 against 55); not better in distance (45"
    assert grey in text
    assert "Against mean thermal: better in distance (45 against 270), KID (0.1 against" in text
    assert "Against ridge: better in distance (45 against 200), KID (0.1 against 0.8); not" in text
    assert "has the sharp edges of real images" in text
    assert comparison_tags(compare_trial(record, record.best)) == {
        "better_than_inverted_grey": "L1",
        "better_than_mean_thermal": "distance, KID, L1",
        "better_than_ridge": "distance, KID",
    }


def test_trial_that_does_not_beat_inverted_grey_is_marked(tmp_path):
    record = record_of(tmp_path)
    run_trial(record, "early", 30.0)
    assert record.trials["early"].beats_inverted_grey is None
    baselines = {"inverted_grey": {"fid": 40.0}, "train": {"fid": 5.0}}
    run_trial(record, "late", 50.0, baselines=baselines)

    assert record.trials["early"].beats_inverted_grey is True
    assert record.trials["late"].beats_inverted_grey is False
    lines = describe(record).splitlines()
    assert lines[1].endswith("completed, beats inverted grey in distance")
    assert lines[2].endswith("completed, beats inverted grey in nothing")
    assert "sharp edges" not in describe(record)
    assert "Baselines, fid: inverted grey 40.00, train 5.00." in lines


def test_finalists_are_the_best_completed_trials(tmp_path):
    record = record_of(tmp_path)
    for id, value, status in [("a", 9, "completed"), ("b", 1, "stopped"), ("c", 2, "diverged"),
                              ("d", 5, "completed"), ("e", 7, "completed")]:  # fmt: skip
        run_trial(record, id, float(value), status=status)

    assert [trial.id for trial in finalists(record, 2)] == ["d", "e"]


def test_finalists_rank_by_the_mean_of_further_seeds_not_by_the_test_split(tmp_path):
    record = record_of(tmp_path)
    run_trial(record, "lucky", 10.0)
    run_trial(record, "steady", 20.0)
    retrain(record, "l1", "lucky", 1, 30.0, test=1.0)
    retrain(record, "l2", "lucky", 2, 26.0, test=2.0)
    retrain(record, "s1", "steady", 1, 21.0, test=33.0)
    retrain(record, "s2", "steady", 2, 19.0, test=31.0)
    final = rank_finalists(record)

    assert (final.finalist, final.generator) == ("steady", "s2")
    assert final.beats_inverted_grey is False
    root_2 = pytest.approx(2**0.5)
    assert (final.winner.objective.mean, final.winner.objective.std) == (20.0, root_2)
    fid = final.winner.test_metrics["fid"]
    assert (fid.mean, fid.std) == (32.0, root_2)
    assert [ranked.values for ranked in final.ranking] == [[21.0, 19.0], [30.0, 26.0]]


def test_finalist_with_a_failed_retraining_ranks_last(tmp_path):
    record = record_of(tmp_path)
    retrain(record, "a1", "a", 1, 5.0)
    retrain(record, "a2", "a", 2, 4.0, status="diverged")
    retrain(record, "b1", "b", 1, 50.0)
    assert rank_finalists(record).finalist == "b"

    record.end("b1", "failed", "out of memory")
    assert rank_finalists(record).finalist == "a"
    record.end("a1", "diverged", "")
    assert rank_finalists(record) is None


def test_there_is_no_final_ranking_before_every_retraining_has_ended(tmp_path):
    record = record_of(tmp_path)
    retrain(record, "a1", "a", 1, 5.0)
    record.start_retraining("b1", "pix2pix", {}, finalist="b", seed=1)
    assert not finalize(record, 2)
    assert "No final ranking yet" in describe_with_trial(record)

    record.end("b1", "failed", "")
    assert not finalize(record, 3)  # one has not started
    assert finalize(record, 2)
    values, tags = mlflow_summary(record.final_ranking)
    assert values == {"winner_mean": 5.0}
    assert tags["winner_generator"] == "a1"
    assert "no test split" in describe_with_trial(record)


def describe_with_trial(record):
    run_trial(record, "a", 6.0)
    return describe(record)


def test_pareto_front_is_recorded_printed_and_plotted(tmp_path):
    record = record_of(tmp_path, "pareto:fid,l1")
    for id, fid, l1 in [("a", 9.0, 1.0), ("b", 1.0, 9.0), ("c", 9.0, 9.0), ("d", 3.0, 3.0)]:
        run_trial(record, id, {"fid": fid, "l1": l1})
    lines = describe(record).splitlines()

    assert record.pareto_front() == ["b", "d", "a"]
    assert record.best.id == "b"
    assert [line.split()[4] for line in lines if "on the Pareto" in line] == ["b", "d", "a"]
    with Image.open(draw_pareto_front(record)) as image:
        assert len(image.convert("L").getcolors()) > 10
    assert [path.name for path in tmp_path.glob("pareto*")] == ["pareto_front.png"]
    assert record_of(tmp_path).pareto_front() == []
    assert draw_pareto_front(record_of(tmp_path, "pareto:fid,l1")) is None
