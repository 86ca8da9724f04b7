"""The drawn recording: in the official layout, repeatable, and no inverted grey."""

import json

import numpy as np
from PIL import Image

from thermal_search.demo.scenes import draw_recording
from thermal_search.preparation.layouts import read_layout


def pairs(folder):
    mapping = json.loads((folder / "rgb_to_thermal_vid_map.json").read_text())
    for rgb, thermal in mapping.items():
        with (
            Image.open(folder / "video_rgb_test" / "data" / rgb) as colors,
            Image.open(folder / "video_thermal_test" / "data" / thermal) as heat,
        ):
            yield colors.copy(), heat.copy()


def test_it_has_the_layout_of_flir_adas_v2(recording):
    layout, found = read_layout(recording)
    kinds = [frame.kind for frame in found.frames]

    assert layout == "flir-v2"
    assert found.left_out == []
    assert (kinds.count("pairs"), kinds.count("rgb"), kinds.count("thermal")) == (48, 10, 10)


def test_the_same_seed_draws_the_same_pictures(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_recording(tmp_path / name, seed=seed, recordings=1, frames=2, stills=1)

    def content(name):
        return [p.read_bytes() for p in sorted((tmp_path / name).rglob("*.jpg"))]

    assert content("a") == content("b") != content("c")


def test_inverted_grey_is_a_bad_answer(recording):
    luma, heat = [], []
    for rgb, thermal in pairs(recording):
        luma.append(np.asarray(rgb.convert("L").resize((80, 71)), float).ravel())
        heat.append(np.asarray(thermal.resize((80, 71)), float).ravel())
    similar = np.corrcoef(255 - np.concatenate(luma), np.concatenate(heat))[0, 1]

    # Not even after the best choice of brightness and contrast: that explains the square of it.
    assert similar**2 < 0.1


def test_there_is_day_and_night(recording):
    brightness = [np.asarray(rgb.convert("L")).mean() for rgb, _ in pairs(recording)]

    assert min(brightness) < 60 < 110 < max(brightness)


def test_something_is_much_warmer_than_its_surroundings(recording):
    hottest = [np.percentile(np.asarray(thermal), 99.8) for _, thermal in pairs(recording)]

    assert np.mean(hottest) > 180
