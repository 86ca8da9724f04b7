"""A whole search from the command line, its driver killed halfway, up to a translation."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from mlflow.tracking import MlflowClient
from PIL import Image
from summaries import assert_is_complete, small

from thermal_search.architectures import ARCHITECTURES
from thermal_search.errors import SearchError
from thermal_search.tracking.runs import SEARCH_TAG, TRIAL_TAG
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.short_budgets import generator_steps, warn_if_short

ROOT = Path(__file__).parents[1]
TRIALS, IMAGES, EVERY = 4, 64, 32
OBJECTIVE = "objective_fd_efficientnet_lite0_plus_0.1_l1"
"""The key of fid+0.1*l1 in MLflow."""


def command(*arguments):
    return [sys.executable, "-m", "thermal_search.cli", *map(str, arguments)]


def run(*arguments, **settings):
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=900, check=False, **settings
    )


def summary_of(output):
    return json.loads((output / "summary.json").read_text())


def current_summary_of(output):
    """From the record, which is ahead of summary.json by up to some seconds."""
    try:
        return SearchRecord.load(output).summary.model_dump(mode="json")
    except SearchError:
        return {"trials": []}  # it has not begun


@pytest.fixture(scope="module")
def searched(dataset, tmp_path_factory):
    """A search whose driver is killed after its first trial, then resumed until it ends."""
    output = tmp_path_factory.mktemp("search") / "output"
    torch.manual_seed(0)
    layers = torchvision.models.alexnet(weights=None).features
    torch.save(layers.state_dict(prefix="features."), output.parent / "alexnet.pth")
    names = ("pix2pix", "cyclegan", "wgan")
    flags = ["--data", dataset, "--output", output, "--architectures", ",".join(names)]
    flags += ["--fix", ",".join(small(*names))]
    flags += ["--trials", TRIALS, "--images", IMAGES, "--evaluate-every", EVERY, "--slots", 1]
    flags += ["--features", "efficientnet-lite0", "--objective", "fid+0.1*l1"]
    flags += ["--finalists", 1, "--seeds", 1, "--lpips-weights", output.parent / "alexnet.pth"]
    log = (output.parent / "log").open("wb")
    driver = subprocess.Popen(
        command("search", *flags), start_new_session=True, stdout=log, stderr=log
    )
    deadline = time.monotonic() + 800

    def has_one_completed_and_one_running():
        trials = current_summary_of(output)["trials"]
        running = [t for t in trials if t["status"] == "running" and t["history"]]
        return len(trials) >= 2 and trials[0]["status"] == "completed" and running

    while not has_one_completed_and_one_running():
        assert time.monotonic() < deadline, (output.parent / "log").read_text()
        assert driver.poll() is None, (output.parent / "log").read_text()
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = current_summary_of(output)
    time.sleep(5)  # Ray's own processes notice that their driver is gone
    # cluster/search.py is the same search with the same flags.
    resumed = subprocess.run(
        [
            sys.executable,
            str(ROOT / "cluster" / "search.py"),
            "--output",
            str(output),
            "--resume",
            "--address",
            "local",
        ],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    return output, before, resumed.stdout


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore")  # MLflow's database layer warns of its own affairs
class TestSearch:
    def test_summary_has_every_trial(self, searched):
        output, _, _ = searched
        summary = summary_of(output)

        assert_is_complete(summary, trials=TRIALS, images=IMAGES)
        assert summary["protocol"]["lpips"].startswith("alexnet ")
        metrics = [item["metrics"] for trial in summary["trials"] for item in trial["history"]]
        metrics += [baseline for baseline in summary["baselines"].values() if "l1" in baseline]
        metrics += [retraining["test_metrics"] for retraining in summary["retrainings"]]
        assert all(item["lpips"] > 0 for item in metrics)

    def test_published_points_run_first(self, searched):
        trials = summary_of(searched[0])["trials"]

        assert [t["architecture"] for t in trials[:3]] == ["pix2pix", "cyclegan", "wgan"]
        assert trials[0]["parameters"]["l1_weight"] == 100.0
        assert trials[2]["parameters"]["weight_clip"] == 0.01

    def test_completed_trials_are_kept_and_running_ones_resume(self, searched):
        output, before, _ = searched
        after = {trial["id"]: trial for trial in summary_of(output)["trials"]}

        for trial in before["trials"]:
            if trial["history"]:
                history = after[trial["id"]]["history"]
                assert history[: len(trial["history"])] == trial["history"]
            if trial["status"] == "completed":
                assert after[trial["id"]] == trial

    def test_mlflow_has_one_parent_run_and_one_child_per_trial(self, searched):
        output, _, _ = searched
        client = MlflowClient(f"sqlite:///{output}/mlflow.db")
        (experiment,) = [e for e in client.search_experiments() if e.name == "thermal-search"]
        runs = client.search_runs([experiment.experiment_id])
        (parent,) = [run for run in runs if TRIAL_TAG not in run.data.tags]
        children = {run.data.tags[TRIAL_TAG]: run for run in runs if TRIAL_TAG in run.data.tags}

        assert {run.data.tags[SEARCH_TAG] for run in runs} == {SearchPlan.load(output).id}
        summary = summary_of(output)
        for trial in summary["trials"] + summary["retrainings"]:
            run = children.pop(trial["id"])
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
            assert run.data.params["architecture"] == trial["architecture"]
            assert run.data.tags["status"] == trial["status"]
            history = client.get_metric_history(run.info.run_id, "fd_efficientnet_lite0")
            points = sorted((point.step, point.value) for point in history)
            assert points == [
                (item["images"], item["metrics"]["fd_efficientnet_lite0"])
                for item in trial["history"]
            ]
            assert client.list_artifacts(run.info.run_id, "images")
            objective = client.get_metric_history(run.info.run_id, OBJECTIVE)
            assert objective[-1].value == pytest.approx(next(iter(trial["objective"].values())))
            assert run.data.tags.get("finalist") == trial.get("finalist")
        assert children == {}
        assert parent.data.params["objective"] == "fid+0.1*l1"
        assert parent.data.tags["winner_generator"] == summary["final_ranking"]["generator"]

    def test_finalists_are_retrained_and_evaluated_on_the_test_split(self, searched):
        output, _, printed = searched
        summary = summary_of(output)
        completed = [t for t in summary["trials"] if t["status"] == "completed"]
        winner = min(completed, key=lambda t: t["objective"]["fd_efficientnet_lite0+0.1*l1"])
        (retraining,) = summary["retrainings"]
        (ranked,) = summary["final_ranking"]["ranking"]

        assert retraining["finalist"] == winner["id"] == summary["final_ranking"]["finalist"]
        assert retraining["parameters"] == winner["parameters"]
        assert (retraining["seed"], retraining["status"]) == (1, "completed")
        assert retraining["history"] != winner["history"]
        assert retraining["test_metrics"]["fd_efficientnet_lite0"] != pytest.approx(
            retraining["history"][-1]["metrics"]["fd_efficientnet_lite0"]
        )
        assert not any("test_metrics" in trial for trial in summary["trials"])
        assert ranked["test_metrics"]["l1"]["mean"] == retraining["test_metrics"]["l1"]
        assert "Final ranking, by the mean fd_efficientnet_lite0+0.1*l1" in printed

    def test_mlflow_artifacts_are_in_the_output_folder(self, searched):
        with sqlite3.connect(searched[0] / "mlflow.db") as database:
            (location,) = database.execute(
                "select artifact_location from experiments where name = 'thermal-search'"
            ).fetchone()
        database.close()

        assert location.startswith((searched[0] / "mlflow-artifacts").as_uri())

    def test_no_partial_file_is_left(self, searched):
        assert [p for p in searched[0].rglob(".unfinished*")] == []

    def test_ranking_is_printed_with_the_next_commands(self, searched):
        output, _, printed = searched

        assert f"thermal-search export {output}" in printed
        assert printed.count("completed") >= 1

    def test_report_is_written_with_the_images_of_the_search(self, searched):
        output, _, printed = searched
        html = (output / "report.html").read_text()

        assert f"The report is in {output / 'report.html'}." in printed
        (winner,) = summary_of(output)["retrainings"]
        assert html.count('alt="winner, scene 1"') == 2  # on the validation and the test split
        assert winner["id"] in html

    def test_best_generator_is_exported_and_translates(self, searched, recording, tmp_path):
        output, _, _ = searched
        exported = run("export", output, "--to", tmp_path / "model")
        assert exported.returncode == 0, exported.stderr
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        (best,) = summary_of(output)["retrainings"]
        assert config["trial"] == best["id"] == summary_of(output)["final_ranking"]["generator"]
        assert config["test_metrics"] == best["test_metrics"]
        assert config["metrics"] == best["history"][-1]["metrics"]
        assert config["objective"] == best["objective"]

        source = tmp_path / "rgb"
        source.mkdir()
        for path in sorted((recording / "images_rgb_val" / "data").iterdir()):
            (source / path.name).write_bytes(path.read_bytes())
        (source / "broken.jpg").write_bytes(b"no image")
        outputs = [tmp_path / "one", tmp_path / "two"]
        for target in outputs:
            result = run("translate", tmp_path / "model", source, target)
            assert result.returncode == 0, result.stderr
            assert "Left out broken.jpg" in result.stderr
        names = sorted(p.name for p in outputs[0].iterdir())
        assert names == sorted(f"{p.stem}.png" for p in source.iterdir() if p.stem != "broken")
        for name in names:
            with Image.open(outputs[0] / name) as image:
                assert image.mode == "L"
                assert image.size == (108, 96)
                assert np.asarray(image).std() > 0
            assert (outputs[0] / name).read_bytes() == (outputs[1] / name).read_bytes()

    def test_edited_export_is_refused(self, searched, tmp_path):
        output, _, _ = searched
        assert run("export", output, "--to", tmp_path / "model").returncode == 0
        config = tmp_path / "model" / "config.json"
        config.write_text(config.read_text().replace('"size": 32', '"size": 64'))
        weights = tmp_path / "model" / "generator.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        result = run("translate", tmp_path / "model", tmp_path, tmp_path / "out")

        assert result.returncode == 1
        assert result.stderr.count("\n") == 1

    def test_another_search_is_refused_in_the_same_folder(self, searched, dataset):
        flags = ["--data", dataset, "--output", searched[0], "--features", "efficientnet-lite0"]
        result = run("search", *flags)

        assert result.returncode == 1
        assert "must be empty" in result.stderr
        assert "--resume" in result.stderr

    def test_resuming_a_finished_search_changes_nothing(self, searched):
        before = summary_of(searched[0])
        result = run("search", "--output", searched[0], "--resume")

        assert result.returncode == 0, result.stderr
        assert summary_of(searched[0]) == before


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"architectures": ("pixpix",)}, r"Unknown architecture 'pixpix'\. .*Did you mean pix2pix"),
        ({"trials": 0}, "--trials must be at least 1, but is 0"),
        (
            {"evaluate_every": 100, "images": 10},
            r"--evaluate-every must not exceed --images \(10\), but is 100",
        ),
        ({"architectures": ()}, "at least one architecture"),
        ({"architectures": ("wgan", "wgan")}, "each architecture once"),
        ({"reduction": 1.0}, "--reduction must be above 1"),
        ({"objective": "fod"}, "unknown metric 'fod'"),
        ({"objective": "pareto:fid,l1", "finalists": 2}, "needs one objective to rank by"),
        ({"finalists": -1}, "--finalists must be at least 0, but is -1"),
        ({"gpus_per_worker": 1.5}, "a fraction of one GPU or a whole number, but is 1.5"),
        ({"seeds": 0}, "--seeds must be at least 1"),
        ({"average_last": 0}, "--average-last must be at least 1"),
    ],
)
def test_impossible_search_is_one_sentence(dataset, tmp_path, flags, sentence):
    values = {"data": dataset, "output": tmp_path / "o", "features": "efficientnet-lite0"} | flags
    with pytest.raises(SearchError, match=sentence):
        plan_from_settings(SearchSettings(**values)).check()


def test_few_generator_steps_are_warned_of(tmp_path, caplog):
    def warning(**values):
        caplog.clear()
        settings = SearchSettings(data=tmp_path, output=tmp_path / "o", **values)
        warn_if_short(plan_from_settings(settings), 64)
        return [record.getMessage() for record in caplog.records]

    names = ("biggan", "improved_gan", "pix2pix")
    (sentence,) = warning(architectures=names, images=200_000)
    assert "leaves fewer than 5,000 generator steps" in sentence
    # Improved GAN's generator takes three turns a step: 6,000 in 2,000 steps of 100 images.
    assert "biggan (782)" in sentence
    assert "improved_gan" not in sentence
    assert "pix2pix" not in sentence
    (sentence,) = warning(architectures=names, images=200_000, workers=2)
    assert "biggan (391), improved_gan (3,000)" in sentence
    assert not warning(architectures=names, images=1_280_000)
    # A fixed batch size is that of the published point too.
    (sentence,) = warning(architectures=("pix2pix",), images=50_000, fix=("pix2pix.batch_size=16",))
    assert "to the published points of pix2pix (3,125): pass more" in sentence


def test_few_generator_steps_of_first_settings_are_warned_of(tmp_path, caplog):
    first = tmp_path / "first.yaml"
    first.write_text(
        "- {architecture: pix2pix, parameters: {batch_size: 16}}\n"
        "- {architecture: pix2pix, parameters: {batch_size: 4}}\n"
        "- {architecture: dcgan, parameters: {batch_size: 32}}\n"
    )
    names = ("dcgan", "pix2pix")
    settings = {"data": tmp_path, "output": tmp_path / "o", "architectures": names, "first": first}
    for images in (50_000, 100_000, 700_000):
        warn_if_short(plan_from_settings(SearchSettings(**settings, images=images)), 64)
    both, one = (record.getMessage() for record in caplog.records)

    assert (
        "generator steps to the published points of dcgan (391) and the --first settings of "
        "pix2pix (3,125), dcgan (1,563): pass more, or expect smaller batches to be better."
    ) in both
    assert "the published points of dcgan (782) and the --first settings of dcgan (3,125)" in one
    caplog.clear()
    settings["architectures"] = ("pix2pix",)
    first.write_text("- {architecture: pix2pix, parameters: {batch_size: 16}}\n")
    warn_if_short(plan_from_settings(SearchSettings(**settings, images=50_000)), 64)
    assert "steps to the --first settings of pix2pix (3,125): pass more" in caplog.text


def test_first_setting_that_cannot_be_built_is_one_sentence(tmp_path):
    space = tmp_path / "mine.py"
    space.write_text(
        "from search_spaces.pix2pix import *\n"
        "from search_spaces.pix2pix import CONDITIONS, PUBLISHED, SPACE\n"
        "CONDITIONS = {k: v for k, v in CONDITIONS.items() if k not in ('r1', 'r1_gamma')}\n"
        "PUBLISHED = PUBLISHED | {'r1': True, 'r1_gamma': 1.0}\n"
    )
    settings = SearchSettings(
        data=tmp_path, output=tmp_path / "o", images=50_000, architectures=("pix2pix",),
        space=(f"pix2pix={space}",),
    )  # fmt: skip

    with pytest.raises(SearchError, match=r"pix2pix cannot be built with a setting .*: r1 needs a"):
        warn_if_short(plan_from_settings(settings), 64)


def test_generator_steps_follow_the_batch_size_of_each_resolution():
    config = ARCHITECTURES["progressive_gan"].Config(size=32, growth_fraction=0.5)

    # 128 images a step until 32 pixels fade in, after 5/12 of the budget; then 64.
    assert generator_steps(config, 24 * 128, workers=1) == 10 + 28
    assert generator_steps(config, 24 * 128, workers=2) == 5 + 14


def test_search_without_data_is_one_sentence(tmp_path):
    result = run("search", "--output", tmp_path / "o")

    assert result.returncode == 2
    assert "needs --data" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_missing_inception_weights_stop_the_search_before_anything_starts(dataset, tmp_path):
    output, weights = tmp_path / "o", tmp_path / "absent.pth"
    flags = ["--data", dataset, "--output", output, "--inception-weights", weights]
    result = run("search", *flags)

    assert result.returncode == 1
    assert "no such file" in result.stderr
    assert not output.exists()


def test_resuming_may_not_change_the_search(dataset, tmp_path):
    values = {"data": dataset, "output": tmp_path, "features": "efficientnet-lite0", "trials": 4}
    plan = plan_from_settings(SearchSettings(**values))
    plan.save()

    resumed = plan_from_settings(SearchSettings(output=tmp_path, slots=2), resume=True)
    assert (resumed.slots, resumed.id, resumed.trials) == (2, plan.id, 4)
    with pytest.raises(SearchError, match="--trials was 4 and is now 3, which is less"):
        plan_from_settings(SearchSettings(output=tmp_path, trials=3), resume=True)
    grown = plan_from_settings(SearchSettings(output=tmp_path, trials=5), resume=True)
    assert grown.trials == 5
    with pytest.raises(SearchError, match="holds no search"):
        plan_from_settings(SearchSettings(output=tmp_path / "none"), resume=True)


def test_encoder_file_may_have_moved_when_a_search_resumes(dataset, tmp_path):
    before, now = tmp_path / "before" / "dino.pt2", tmp_path / "now" / "dino.pt2"
    values = {"data": dataset, "output": tmp_path, "features": str(before)}
    plan_from_settings(SearchSettings(**values)).save()

    resumed = plan_from_settings(SearchSettings(output=tmp_path, features=str(now)), resume=True)
    assert resumed.features == str(now)
    for other in (tmp_path / "clip.pt2", "inception"):
        with pytest.raises(SearchError, match=r"--features was .*before/dino.pt2 and is now"):
            plan_from_settings(SearchSettings(output=tmp_path, features=str(other)), resume=True)


@pytest.mark.parametrize("name", ["export", "ui"])
def test_folder_without_a_search_is_one_sentence(tmp_path, name):
    result = run(name, tmp_path)

    assert result.returncode == 1
    assert "holds no search" in result.stderr
    assert result.stderr.count("\n") == 1


def test_command_line_imports_no_heavy_module():
    code = (
        "import sys, thermal_search.cli; "
        "print({'torch', 'ray', 'mlflow', 'optuna'} & sys.modules.keys())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
