"""The ranking of a search's record, its Pareto front, and the final ranking. No Ray."""

import json

import pytest
from PIL import Image
from summaries import evaluate, record_of, run_trial

from thermal_search.errors import SearchError
from thermal_search.evaluation.comparison import comparison_tags
from thermal_search.tuning.final_ranking import mlflow_summary
from thermal_search.tuning.pareto_plot import draw_pareto_front
from thermal_search.tuning.ranking_text import compare_trial, describe
from thermal_search.tuning.record import SearchRecord


def retrain(record, finalist, seed, *values, status="completed", **settings):
    retraining = record.add_retraining(finalist, seed)
    evaluate(record, retraining.id, *values, **settings)
    record.end(retraining.id, status, "")
    return retraining


def test_luckiest_evaluation_does_not_win(tmp_path):
    record = record_of(tmp_path, average_last=2)
    lucky = run_trial(record, 50.0, 9.0, 60.0, 50.0)
    steady = run_trial(record, 60.0, 50.0, 40.0, 40.0)

    assert record.ranking() == [steady, lucky]
    assert lucky.objective == {"fid": 55.0}
    assert lucky.checkpoint == "trials/00000/generator.pt"


def test_stopped_trial_ranks_after_completed_ones(tmp_path):
    record = record_of(tmp_path, average_last=2)
    lucky = run_trial(record, 10.0, status="stopped")
    assert record.best is lucky  # there is no other yet

    second = run_trial(record, 90.0, 60.0, 50.0)
    first = run_trial(record, 80.0, 40.0, 30.0)
    diverged = run_trial(record, 8.0, 7.0, status="diverged")
    running = run_trial(record, 5.0, status="running")
    assert record.ranking() == [first, second, running, diverged, lucky]
    record.flush()
    assert json.loads((tmp_path / "summary.json").read_text())["best"] == first.id
    assert describe(record).splitlines()[1].split()[3] == first.id


def test_stopped_trial_is_not_on_the_front_once_one_completes(tmp_path):
    record = record_of(tmp_path, objective="pareto:fid,l1")
    lucky = run_trial(record, {"fid": 1.0, "l1": 1.0}, status="failed")
    assert record.pareto_front() == [lucky.id]

    whole = run_trial(record, {"fid": 3.0, "l1": 3.0})
    assert record.pareto_front() == [whole.id]
    assert draw_pareto_front(record)


def test_loaded_record_equals_the_one_that_was_written(tmp_path):
    settings = {"objective": "fid+2*l1", "average_last": 2, "trials": 1}
    record = record_of(tmp_path, **settings, finalists=1, seeds=1)
    trial = run_trial(record, {"fid": 3.0, "l1": 1.0}, {"fid": 5.0, "l1": 2.0})
    retrain(record, trial, 1, {"fid": 4.0, "l1": 2.0}, test=3.0)
    record.flush()
    written = json.loads((tmp_path / "summary.json").read_text())
    loaded = SearchRecord.load(tmp_path)

    assert json.loads(loaded.summary.model_dump_json()) == written
    assert loaded.final_ranking
    assert written["version"] == 3
    assert written["trials"][0]["objective"] == {"fid+2*l1": 7.0}
    assert written["trials"][0]["history"][1] == {
        "images": 2, "metrics": {"fid": 5.0, "l1": 2.0}, "seconds": 1.0,
    }  # fmt: skip
    assert written["protocol"] == {"images": 9}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"version": 7}, "has version 7, but this release reads version 2"),
        ({"trial": {"id": "00000"}}, r"trial\.number: Field required"),
        ({"trial": 3}, "is damaged"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
    ],
)
def test_edited_trial_is_one_sentence(tmp_path, change, fault):
    run_trial(record_of(tmp_path), 3.0)
    path = tmp_path / "trials" / "00000" / "trial.json"
    text = json.dumps(json.loads(path.read_text()) | change)
    path.write_text(text)
    assert SearchRecord.load(tmp_path).trials["00000"].images == 1  # from its backup

    path.with_name("trial.json.bak").write_text(text)
    with pytest.raises(SearchError, match=fault):
        SearchRecord.load(tmp_path)


def test_trial_in_the_folder_of_another_is_one_sentence(tmp_path):
    run_trial(record_of(tmp_path), 3.0)
    (tmp_path / "trials" / "00000").rename(tmp_path / "trials" / "00001")

    with pytest.raises(SearchError, match=r"00001/trial.json is damaged \(it is the file of"):
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
    run_trial(record, *values, baselines=baselines)
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
    baselines = {"inverted_grey": {"fid": 40.0}, "train": {"fid": 5.0}}
    early = run_trial(record, 30.0, baselines=baselines)
    late = run_trial(record, 50.0)

    assert early.beats_inverted_grey is True
    assert late.beats_inverted_grey is False
    lines = describe(record).splitlines()
    assert lines[1].endswith("completed, beats inverted grey in distance")
    assert lines[2].endswith("completed, beats inverted grey in nothing")
    assert "sharp edges" not in describe(record)
    assert "Baselines, fid: inverted grey 40.00, train 5.00." in lines


def test_finalists_are_the_best_completed_trials_once_all_have_ended(tmp_path):
    record = record_of(tmp_path, trials=5, finalists=2)
    run_trial(record, 9.0)
    run_trial(record, 1.0, status="stopped")
    run_trial(record, 2.0, status="diverged")
    second = run_trial(record, 5.0)
    assert record.finalists() == []
    first = run_trial(record, 4.0)

    assert record.finalists() == [first, second]


def test_finalists_rank_by_the_mean_of_further_seeds_not_by_the_test_split(tmp_path):
    record = record_of(tmp_path, trials=2, finalists=2, seeds=2)
    lucky, steady = run_trial(record, 10.0), run_trial(record, 20.0)
    retrain(record, lucky, 1, 30.0, test=1.0)
    retrain(record, lucky, 2, 26.0, test=2.0)
    retrain(record, steady, 1, 21.0, test=33.0)
    assert record.final_ranking is None
    retrain(record, steady, 2, 19.0, test=31.0)
    final = record.final_ranking

    assert (final.finalist, final.generator) == (steady.id, f"{steady.id}-seed-2")
    assert final.beats_inverted_grey is False
    root_2 = pytest.approx(2**0.5)
    assert (final.winner.objective.mean, final.winner.objective.std) == (20.0, root_2)
    fid = final.winner.test_metrics["fid"]
    assert (fid.mean, fid.std) == (32.0, root_2)
    assert [ranked.values for ranked in final.ranking] == [[21.0, 19.0], [30.0, 26.0]]


def test_finalist_with_a_failed_retraining_ranks_last(tmp_path):
    record = record_of(tmp_path, trials=2, finalists=2, seeds=2)
    a, b = run_trial(record, 1.0), run_trial(record, 2.0)
    a1 = retrain(record, a, 1, 5.0)
    retrain(record, a, 2, 4.0, status="diverged")
    b1 = retrain(record, b, 1, 50.0)
    b2 = retrain(record, b, 2, 50.0)
    assert record.final_ranking.finalist == b.id

    record.end(b1.id, "failed", "out of memory")
    record.end(b2.id, "failed", "out of memory")
    assert record.final_ranking.finalist == a.id
    record.end(a1.id, "diverged", "")
    assert record.final_ranking is None


def test_there_is_no_final_ranking_before_every_retraining_has_ended(tmp_path):
    record = record_of(tmp_path, trials=2, finalists=2, seeds=1)
    a, b = run_trial(record, 6.0), run_trial(record, 7.0)
    retrain(record, a, 1, 5.0)
    assert record.final_ranking is None  # one has not begun
    unfinished = record.add_retraining(b, 1)
    assert record.final_ranking is None
    assert "No final ranking yet" in describe(record)

    record.end(unfinished.id, "failed", "")
    values, tags = mlflow_summary(record.final_ranking)
    assert values == {"result/winner_mean": 5.0}
    assert tags["winner_generator"] == "00000-seed-1"
    assert "no test split" in describe(record)


def test_added_trials_bring_new_finalists(tmp_path):
    record = record_of(tmp_path, trials=1, finalists=1, seeds=1)
    retrain(record, run_trial(record, 6.0), 1, 5.0)
    assert record.final_ranking
    record.plan.replace(trials=2).save()
    grown = SearchRecord.load(tmp_path)
    assert grown.final_ranking is None
    better = run_trial(grown, 4.0)
    assert grown.final_ranking is None
    retrain(grown, better, 1, 4.5)

    # What was trained before is not lost.
    assert [ranked.finalist for ranked in grown.final_ranking.ranking] == [better.id, "00000"]


def test_pareto_front_is_recorded_printed_and_plotted(tmp_path):
    record = record_of(tmp_path, objective="pareto:fid,l1")
    trials = [
        run_trial(record, {"fid": fid, "l1": l1})
        for fid, l1 in [(9.0, 1.0), (1.0, 9.0), (9.0, 9.0), (3.0, 3.0)]
    ]
    lines = describe(record).splitlines()
    front = [trials[number].id for number in (1, 3, 0)]

    assert record.pareto_front() == front
    assert record.best is trials[1]
    assert [line.split()[4] for line in lines if "on the Pareto" in line] == front
    with Image.open(draw_pareto_front(record)) as image:
        assert len(image.convert("L").getcolors()) > 10
    assert [path.name for path in tmp_path.glob("pareto*")] == ["pareto_front.png"]
    assert record_of(tmp_path / "one").pareto_front() == []
    assert draw_pareto_front(record_of(tmp_path / "none", objective="pareto:fid,l1")) is None
