"""16-bit thermal: counts, degrees and network range are consistent."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from summaries import record_of, run_trial
from tiny_settings import TINY

from thermal_search import architectures, checkpoint, export
from thermal_search.data.batches import PairedBatches
from thermal_search.data.frames import Frames
from thermal_search.errors import DatasetError
from thermal_search.images import Temperatures
from thermal_search.pair_alignment import PairAlignment
from thermal_search.translation.command import translate
from thermal_search.translation.settings import TranslationSettings

WARM = Temperatures(low=-20.0, high=60.0)


def counts_of(celsius):
    return ((np.asarray(celsius) + 273.15) / 0.04).round().astype(np.uint16)


def test_range_maps_to_network_range_and_back():
    images = WARM.images(torch.from_numpy(counts_of([-100, -20, 20, 60, 300])))

    assert images.tolist() == pytest.approx([-1, -1, 0, 1, 1], abs=6e-4)
    assert WARM.celsius(images).tolist() == pytest.approx([-20, -20, 20, 60, 60], abs=0.03)


def test_other_gain_gives_other_degrees():
    fine = Temperatures(0.0, 100.0, kelvin_per_count=0.01)
    images = fine.images(torch.tensor([32315], dtype=torch.uint16))

    assert fine.celsius(images).item() == pytest.approx(50, abs=0.01)


def test_slice_of_radiometric_frames_keeps_their_degrees():
    counts = np.arange(6 * 64, dtype=np.uint16).reshape(6, 1, 8, 8) * 9 + 6000
    frames = Frames([counts[:2], counts[2:]], size=8, channels=1, temperatures=WARM)

    middle = frames.slice(1, 5)
    assert middle.temperatures == WARM
    assert torch.equal(middle.take(range(4)), frames.take(range(1, 5)))


def test_networks_get_full_precision_and_metrics_get_grey_levels():
    celsius = np.linspace(-20, 60, 4 * 8 * 8).reshape(4, 1, 8, 8)
    frames = Frames([counts_of(celsius)], size=8, channels=1, temperatures=WARM)
    rgb = Frames([np.zeros((4, 3, 8, 8), np.uint8)], size=8, channels=3)
    batches = PairedBatches(rgb, frames, batch_size=4, seed=0, device=torch.device("cpu"))
    thermal = next(batches).thermal

    assert thermal.dtype == torch.float32
    assert len(thermal.unique()) == 256
    assert thermal.min() == pytest.approx(-1, abs=1e-3)
    assert thermal.max() == pytest.approx(1, abs=1e-3)
    pixels = frames.take(range(4))
    assert pixels.dtype == torch.uint8
    expected = ((celsius + 20) / 80 * 255).round()
    assert np.abs(pixels.numpy() - expected).max() <= 1


def exported(folder, temperatures):
    """A generator as `thermal-search export` writes it, from a made-up search."""
    translator = architectures.build("pix2pix", 32, TINY["pix2pix"])
    description = checkpoint.GeneratorDescription(
        architecture="pix2pix",
        parameters=TINY["pix2pix"],
        size=32,
        temperatures=temperatures,
        alignment=PairAlignment(method="none", layout="folders"),
        images=1,
        metrics={"fid": 1.0},
        protocol={"features": "inception"},
    )
    record = record_of(folder)
    trial = run_trial(record, 1.0)
    weights = translator.generator.state_dict()
    checkpoint.save_generator(description, weights, record.output / "trials" / trial.id)
    return export.export(folder)


def test_generator_of_16_bit_thermal_writes_degrees(tmp_path):
    model = exported(tmp_path / "search", WARM)
    (tmp_path / "rgb").mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "rgb" / "a.png")
    translate(model, tmp_path / "rgb", tmp_path / "degrees", TranslationSettings(celsius=True))
    translate(model, tmp_path / "rgb", tmp_path / "gray")
    with Image.open(tmp_path / "degrees" / "a.png") as image:
        scale = float(image.text["kelvin_per_count"]), float(image.text["celsius_at_zero"])
        celsius = np.asarray(image).astype(float) * scale[0] + scale[1]
    with Image.open(tmp_path / "gray" / "a.png") as image:
        gray = np.asarray(image).astype(float)

    assert json.loads((model / "config.json").read_text())["temperatures"] == asdict(WARM)
    assert scale == (0.01, -273.15)
    assert np.abs(celsius - (gray / 255 * 80 - 20)).max() <= 80 / 255 / 2 + 0.01
    assert len(np.unique(celsius)) > len(np.unique(gray))


def test_8_bit_generator_cannot_write_degrees(tmp_path):
    model = exported(tmp_path / "search", None)
    with pytest.raises(DatasetError, match="8-bit thermal images, which hold no temperatures"):
        translate(model, tmp_path, tmp_path / "degrees", TranslationSettings(celsius=True))
