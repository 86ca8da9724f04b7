"""`thermal-search evaluate` computes the metrics of a search, with any number of workers."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from generator_helpers import PROTOCOL, save_untrained

from thermal_search import generator
from thermal_search.cli import main
from thermal_search.data.frames import EVALUATION_BATCH
from thermal_search.data.manifest import read_manifest
from thermal_search.data.parquet import read_pairs
from thermal_search.errors import MetricError, SearchError
from thermal_search.evaluation.command import STORE_FILE, EvaluationRequest, evaluate
from thermal_search.evaluation.report import EvaluationReport, print_report
from thermal_search.images import Temperatures, to_network_range, to_pixels
from thermal_search.metrics import ssim
from thermal_search.pair_alignment import PairAlignment
from thermal_search.storage import Location

FAST = {"features": "efficientnet-lite0"}


@pytest.fixture
def model(tmp_path):
    return save_untrained(tmp_path / "generator")


@pytest.fixture
def uncached(dataset, tmp_path):
    """Makes copies of the dataset without cached statistics."""
    numbers = itertools.count()
    return lambda: shutil.copytree(
        dataset, tmp_path / f"copy-{next(numbers)}", ignore=shutil.ignore_patterns("statistics")
    )


def test_command_prints_and_writes_all_metrics(model, dataset, tmp_path, capsys):
    file = tmp_path / "report.json"
    # The features are those of the generator's search.
    main(["evaluate", str(model), "--data", str(dataset), "--json", str(file)])
    printed = capsys.readouterr().out
    report = EvaluationReport.model_validate_json(file.read_text(), strict=True)
    metric, metrics, baselines = report.metric, report.metrics, report.baselines

    assert metric == "fd_efficientnet_lite0"
    assert (report.model, report.architecture, report.split) == ("generator", "pix2pix", "val")
    assert report.dataset == read_manifest(dataset).digest
    assert {"kid_efficientnet_lite0", "psnr", "ssim", "l1", metric} <= set(metrics)
    assert report.protocol["images"] == read_manifest(dataset).count("pairs", "val")
    for name in metrics:
        assert name in printed
    assert set(baselines) == {"real_halves", "train", "inverted_grey", "mean_thermal", "ridge"}
    untrained, gray = metrics[metric], baselines["inverted_grey"][metric]
    assert report.beats_inverted_grey == (untrained < gray)
    for baseline in baselines.values():
        assert f"{baseline[metric]:.4g}" in printed
    assert f"distance ({untrained:.4g} against {gray:.4g})" in printed.replace("\n", " ")
    assert set(report.better_than) == {"inverted_grey", "mean_thermal", "ridge"}


def test_two_workers_compute_the_metrics_of_one(model, uncached, capsys):
    # The other splits have only one batch: none for the second worker.
    arguments = {"model": model, "split": "train", **FAST}
    one = evaluate(EvaluationRequest(data=uncached(), **arguments))
    progress_of_one = capsys.readouterr().err
    two = evaluate(EvaluationRequest(data=uncached(), workers=2, **arguments))
    count = one.protocol["images"]

    assert count > EVALUATION_BATCH
    assert two.protocol == one.protocol
    assert two.metrics == pytest.approx(one.metrics, rel=1e-5)
    assert set(two.baselines) == set(one.baselines)
    for name, baseline in one.baselines.items():
        assert two.baselines[name] == pytest.approx(baseline, rel=1e-5)
    # All workers measure the real images, four baselines and the generated images.
    for progress in (progress_of_one, capsys.readouterr().err):
        assert f" {6 * count}/{6 * count} " in progress


def test_data_whose_pixels_have_another_meaning_is_refused(model, dataset):
    weights = generator.load(model).generator.state_dict()
    config = generator.load_config(model)
    radiometric = config.model_copy(update={"temperatures": Temperatures(-20.0, 60.0)})
    generator.save(Location.of(model), radiometric, weights)
    with pytest.raises(SearchError, match=r"from -20 to 60 degrees Celsius, but .* has 8-bit"):
        evaluate(EvaluationRequest(model=model, data=dataset, **FAST))


@pytest.mark.parametrize(
    ("trained", "sentence"),
    [
        ({"method": "none", "layout": "flir-v2"}, ""),
        ({"method": "none", "layout": "flir-v1"}, "as the layout flir-v1 has them (--align none)"),
        (
            {"method": "center", "layout": "flir-v2", "fields_of_view": (45.0, 52.8)},
            "aligned by --align center --fields-of-view 45,52.8, but prepared has pairs as the "
            "layout flir-v2 has them (--align none)",
        ),
    ],
)
def test_report_says_that_the_pairs_are_aligned_in_another_way(model, dataset, trained, sentence):
    config = generator.load_config(model)
    config = config.model_copy(update={"alignment": PairAlignment(**trained)})
    generator.save(Location.of(model), config, generator.load(model).generator.state_dict())
    report = evaluate(EvaluationRequest(model=model, data=dataset, **FAST))

    assert len(report.notes) == bool(sentence)
    assert all(sentence in note and "do not compare" in note for note in report.notes)


def test_progress_counts_what_is_not_cached(model, uncached, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    data = uncached()
    manifest = read_manifest(data)
    count, cache = manifest.count("pairs", "val"), manifest.statistics.local

    def progress():
        """The completed and total images, each time the bar is drawn."""
        evaluate(EvaluationRequest(model=model, data=data, **FAST))
        return [
            (int(n), int(total)) for n, total in re.findall(r"(\d+)/(\d+)", capsys.readouterr().err)
        ]

    for deleted, passes in (("*", 6), ("none", 1), ("*.npz", 2), ("*.json", 5)):
        for file in cache.glob(deleted):
            file.unlink()
        drawn = progress()
        assert {total for _, total in drawn} == {passes * count}
        assert drawn == sorted(drawn)
        assert drawn[-1] == (passes * count, passes * count)


def test_inverting_generator_has_the_ssim_of_inverted_images(model, dataset, monkeypatch):
    monkeypatch.setattr(
        "thermal_search.architectures.pix2pix.Pix2Pix.translate",
        lambda self, rgb, z=None: -rgb[:, :1],
    )
    report = evaluate(EvaluationRequest(model=model, data=dataset, split="test", **FAST))
    rgb, thermal = (
        frames.take(range(len(frames))) for frames in read_pairs(read_manifest(dataset), "test")
    )
    inverted = to_pixels(-to_network_range(rgb[:, :1]))

    assert report.split == "test"
    assert report.metrics["ssim"] == pytest.approx(ssim(inverted, thermal).mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "vgg"], "Unknown features 'vgg'"),
        (["--workers", "0"], "--workers must be from 1 to 256, but is 0"),
        (["--features", "efficientnet-lite"], "did you mean efficientnet-lite0?"),
        (
            ["--inception-weights", "absent.pth", "--features", "inception"],
            "--inception-weights must be",
        ),
        (
            ["--lpips-weights", "absent.pth", "--features", "efficientnet-lite0"],
            "--lpips-weights must",
        ),
    ],
)
def test_invalid_request_is_one_sentence(model, dataset, arguments, message, capsys):
    with pytest.raises(SystemExit) as exited:
        main(["evaluate", str(model), "--data", str(dataset), *arguments])
    # A wrong command line prints its sentence and exits with 2; other errors exit with theirs.
    assert message in f"{exited.value}{capsys.readouterr().err}"


def test_features_of_a_file_must_be_passed(model, dataset):
    weights = generator.load(model).generator.state_dict()
    config = generator.load_config(model)
    protocol = config.protocol | {"features": "dinov2"}
    generator.save(Location.of(model), config.model_copy(update={"protocol": protocol}), weights)
    with pytest.raises(SearchError, match=r"'dinov2' of an encoder's file, .* as --features"):
        evaluate(EvaluationRequest(model=model, data=dataset))


def test_generator_of_another_size_is_refused(dataset, tmp_path):
    larger = save_untrained(tmp_path / "larger", size=64)
    with pytest.raises(SystemExit, match=r"generates images of 64 pixels a side, but .* has 32"):
        main(["evaluate", str(larger), "--data", str(dataset), "--features", "efficientnet-lite0"])


def test_error_in_a_worker_process_is_the_same_sentence(model, dataset, tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(MetricError, match="--lpips-weights must be"):
        evaluate(
            EvaluationRequest(model=model, data=dataset, workers=2, lpips_weights=absent, **FAST)
        )


def worker_processes(command):
    """The ids of the workers that a running command has started."""
    children = Path(f"/proc/{command}/task/{command}/children").read_text().split()
    return [int(id) for id in children if "spawn_main" in Path(f"/proc/{id}/cmdline").read_text()]


def test_killed_worker_is_a_sentence(model, dataset, tmp_path):
    (tmp_path / "temporary").mkdir()
    flags = ["--workers", "2", "--features", "efficientnet-lite0"]
    command = subprocess.Popen(
        [sys.executable, "-m", "thermal_search.cli", "evaluate", model, "--data", dataset, *flags],
        env=os.environ | {"TMPDIR": str(tmp_path / "temporary")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not [*tmp_path.glob(f"temporary/*/{STORE_FILE}")]:  # the workers look for each other
            assert command.poll() is None
            time.sleep(0.05)
        os.kill(worker_processes(command.pid)[0], signal.SIGKILL)
        _, printed = command.communicate(timeout=120)
    finally:
        command.kill()

    assert command.returncode == 1
    assert "killed, perhaps because memory ran out" in printed.replace("\n", " ")
    assert "Traceback" not in printed
    assert not [*tmp_path.glob("temporary/*")]


@pytest.mark.parametrize(
    ("gray", "message"),
    [
        (9.5, "Against inverted grey: better in distance (9 against 9.5), L1 (3 against 4.25)."),
        (9.0, "better in L1 (3 against 4.25); not better in distance (9 against 9)."),
    ],
)
def test_printed_report_says_what_beats_what_in_which_measure(gray, message, capsys):
    print_report(
        EvaluationReport(
            model="generator",
            architecture="pix2pix",
            dataset="d",
            split="val",
            metric="fid",
            protocol=PROTOCOL,
            metrics={"fid": 9.0, "l1": 3.0},
            baselines={"inverted_grey": {"fid": gray, "l1": 4.25, "images": 7}},
            beats_inverted_grey=gray > 9.0,
            better_than={},
            notes=["It is [bold] to compare."],
        )
    )
    printed = capsys.readouterr().out

    assert message in printed
    assert "Note: It is [bold] to compare." in printed
    assert ("sharp edges" in printed) == (gray == 9.0)
