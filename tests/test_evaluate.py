"""`thermal-search evaluate` finds the numbers a search would, with any number of workers."""

import itertools
import json
import re
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tiny_settings import SIZE, TINY

from thermal_search.architectures import build
from thermal_search.cli import main
from thermal_search.data.frames import EVALUATION_BATCH
from thermal_search.data.manifest import read_manifest
from thermal_search.data.parquet import read_pairs
from thermal_search.errors import MetricError
from thermal_search.evaluation.command import Request, describe, evaluate
from thermal_search.images import to_network_range, to_pixels
from thermal_search.metrics import ssim

FAST = {"features": "efficientnet-lite0"}


def export_of(folder, size=SIZE):
    """What export writes, of untrained weights."""
    torch.manual_seed(0)
    folder.mkdir()
    translator = build("pix2pix", size, TINY["pix2pix"])
    save_file(translator.generator.state_dict(), folder / "generator.safetensors")
    config = {"format": 1, "architecture": "pix2pix", "parameters": TINY["pix2pix"], "size": size}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def model(tmp_path):
    return export_of(tmp_path / "generator")


@pytest.fixture
def unmeasured(dataset, tmp_path):
    """Copies of the dataset of which nothing is measured yet."""
    numbers = itertools.count()
    return lambda: shutil.copytree(
        dataset, tmp_path / f"copy-{next(numbers)}", ignore=shutil.ignore_patterns("statistics")
    )


def test_the_command_tells_the_whole_table(model, dataset, tmp_path, capsys):
    file = tmp_path / "found.json"
    arguments = [str(model), "--data", str(dataset), "--features", "efficientnet-lite0"]
    main(["evaluate", *arguments, "--json", str(file)])
    shown = capsys.readouterr().out
    found = json.loads(file.read_text())
    metric, numbers, baselines = (found[name] for name in ("metric", "numbers", "baselines"))

    assert metric == "fd_efficientnet_lite0"
    assert {"kid_efficientnet_lite0", "psnr", "ssim", "l1", metric} <= set(numbers)
    assert found["protocol"]["images"] == read_manifest(dataset).count("pairs", "val")
    for name in numbers:
        assert name in shown
    # Beside them, on the same images, what took no training.
    assert set(baselines) == {"real_halves", "train", "inverted_grey", "mean_thermal"}
    untrained, grey = numbers[metric], baselines["inverted_grey"][metric]
    assert found["beats_inverted_grey"] == (untrained < grey)
    for baseline in baselines.values():
        assert f"{baseline[metric]:.4g}" in shown
    assert f"({metric} {untrained:.6g} against {grey:.6g})" in shown


def test_two_workers_find_what_one_finds(model, unmeasured, capsys):
    # The other splits are one batch, which leaves the second worker nothing.
    asked = {"model": model, "split": "train", **FAST}
    one = evaluate(Request(data=unmeasured(), **asked))
    told = capsys.readouterr().err
    two = evaluate(Request(data=unmeasured(), workers=2, **asked))
    count = one["protocol"]["images"]

    assert count > EVALUATION_BATCH
    assert two["protocol"] == one["protocol"]
    assert two["numbers"] == pytest.approx(one["numbers"], rel=1e-6)
    assert set(two["baselines"]) == set(one["baselines"])
    for name, baseline in one["baselines"].items():
        assert two["baselines"][name] == pytest.approx(baseline, rel=1e-6)
    # The bar counts what all workers measure: the real images, three baselines, the painted ones.
    for bar in (told, capsys.readouterr().err):
        assert f" {5 * count}/{5 * count} " in bar


def test_the_bar_counts_what_is_not_known_yet(model, unmeasured, monkeypatch, capsys):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    data = unmeasured()
    manifest = read_manifest(data)
    count, (place,) = manifest.count("pairs", "val"), [manifest.statistics.local]

    def drawn():
        """How far the bar was, and of how much, as often as it was drawn."""
        evaluate(Request(model=model, data=data, **FAST))
        return [(int(n), int(of)) for n, of in re.findall(r"(\d+)/(\d+)", capsys.readouterr().err)]

    for forgotten, passes in (("*", 5), ("none", 1), ("*.npz", 2), ("*.json", 4)):
        for file in place.glob(forgotten):
            file.unlink()
        bar = drawn()
        assert {of for _, of in bar} == {passes * count}
        assert bar == sorted(bar)
        assert bar[-1] == (passes * count, passes * count)


def test_a_generator_that_only_inverts_is_measured_as_such(model, dataset, monkeypatch):
    monkeypatch.setattr(
        "thermal_search.architectures.pix2pix.Pix2Pix.translate",
        lambda self, rgb, z=None: -rgb[:, :1],
    )
    found = evaluate(Request(model=model, data=dataset, split="test", **FAST))
    rgb, thermal = (
        part.take(range(len(part))) for part in read_pairs(read_manifest(dataset), "test")
    )
    inverted = to_pixels(-to_network_range(rgb[:, :1]))

    assert found["split"] == "test"
    assert found["numbers"]["ssim"] == pytest.approx(
        ssim(inverted, thermal).mean().item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--features", "vgg"], "Unknown features 'vgg'"),
        (["--workers", "0"], "--workers must be at least 1, but is 0"),
        (["--inception-weights", "absent.pth"], "--inception-weights must be"),
        (
            ["--lpips-weights", "absent.pth", "--features", "efficientnet-lite0"],
            "--lpips-weights must",
        ),
    ],
)
def test_what_cannot_be_judged_is_told_in_one_sentence(model, dataset, arguments, told):
    with pytest.raises(SystemExit, match=told):
        main(["evaluate", str(model), "--data", str(dataset), *arguments])


def test_a_generator_of_another_size_is_refused(dataset, tmp_path):
    larger = export_of(tmp_path / "larger", size=64)
    with pytest.raises(SystemExit, match=r"paints 64 pixels a side, but .* has 32"):
        main(["evaluate", str(larger), "--data", str(dataset), "--features", "efficientnet-lite0"])


def test_a_fault_in_a_worker_is_told_as_in_one(model, dataset, tmp_path):
    absent = tmp_path / "absent"
    with pytest.raises(MetricError, match="--lpips-weights must be"):
        evaluate(Request(model=model, data=dataset, workers=2, lpips_weights=absent, **FAST))


@pytest.mark.parametrize(
    ("grey", "told"),
    [(9.5, "beats inverted grey RGB (fid 9 against 9.5)."), (9.0, "does not beat inverted grey")],
)
def test_whether_inverted_grey_is_beaten_is_said_in_words(grey, told, capsys):
    protocol = {"images": 7, "features": "f", "weights": "w", "resize": "r", "precision": "fp32"}
    describe(
        {
            "model": "generator",
            "split": "val",
            "metric": "fid",
            "protocol": protocol,
            "numbers": {"fid": 9.0, "l1": 3.0},
            "baselines": {"inverted_grey": {"fid": grey, "l1": 4.25, "images": 7}},
            "beats_inverted_grey": grey > 9.0,
        }
    )
    shown = capsys.readouterr().out

    assert told in shown
    assert "4.25" in shown
    assert ("learned nothing of heat" in shown) == (grey == 9.0)
