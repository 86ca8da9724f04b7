"""`thermal-search evaluate` finds the numbers a search would, with any number of workers."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny import SIZE, TINY

from thermal_search.architectures import build
from thermal_search.cli import main
from thermal_search.dataset.manifest import read_manifest
from thermal_search.dataset.stored import read_pairs
from thermal_search.errors import MetricError
from thermal_search.evaluate import Request, describe, evaluate
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


def test_two_workers_find_what_one_finds(model, dataset, tmp_path, capsys):
    file = tmp_path / "found.json"
    arguments = [str(model), "--data", str(dataset), "--features", "efficientnet-lite0"]
    main(["evaluate", *arguments, "--json", str(file)])
    shown, bar = capsys.readouterr()
    one = json.loads(file.read_text())
    two = evaluate(Request(model=model, data=dataset, workers=2, **FAST))
    count = read_manifest(dataset).count("pairs", "val")

    assert one["metric"] == "fd_efficientnet_lite0"
    assert {"kid_efficientnet_lite0", "psnr", "ssim", "l1", one["metric"]} <= set(one["numbers"])
    assert two["numbers"] == pytest.approx(one["numbers"], rel=1e-6)
    assert two["protocol"] == one["protocol"]
    assert one["protocol"]["images"] == count
    # The bar counts what all workers measure: at first the three baselines too.
    assert f"{4 * count}/{4 * count}" in bar
    assert f"{count}/{count}" in capsys.readouterr().err
    for name in one["numbers"]:
        assert name in shown
    # Beside them, on the same pictures, what took no training.
    assert set(one["floors"]) == {"real_halves", "train", "inverted_grey", "mean_thermal"}
    assert two["floors"] == one["floors"]
    untrained, grey = (
        side[one["metric"]] for side in (one["numbers"], one["floors"]["inverted_grey"])
    )
    assert one["beats_inverted_grey"] == (untrained < grey)
    for floor in one["floors"].values():
        assert f"{floor[one['metric']]:.4g}" in shown
    assert f"({one['metric']} {untrained:.6g} against {grey:.6g})" in shown


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
            "floors": {"inverted_grey": {"fid": grey, "l1": 4.25, "images": 7}},
            "beats_inverted_grey": grey > 9.0,
        }
    )
    shown = capsys.readouterr().out

    assert told in shown
    assert "4.25" in shown
    assert ("learned nothing of heat" in shown) == (grey == 9.0)
