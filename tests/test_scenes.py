"""The drawn recording: in FLIR's layout, reproducible, and not solved by inverted grey."""

import json

import numpy as np
from PIL import Image

from thermal_search.demo.scenes import draw_recording
from thermal_search.preparation.layouts import read_layout


def pairs(folder):
    mapping = json.loads((folder / "rgb_to_thermal_vid_map.json").read_text())
    for rgb, thermal in mapping.items():
        with (
            Image.open(folder / "video_rgb_test" / "data" / rgb) as rgb_image,
            Image.open(folder / "video_thermal_test" / "data" / thermal) as thermal_image,
        ):
            yield rgb_image.copy(), thermal_image.copy()


def test_drawn_recording_has_the_layout_of_flir_adas_v2(recording):
    layout, contents = read_layout(recording)
    kinds = [frame.kind for frame in contents.frames]

    assert layout == "flir-v2"
    assert contents.unusable_files == []
    assert (kinds.count("pairs"), kinds.count("rgb"), kinds.count("thermal")) == (48, 10, 10)


def test_same_seed_draws_the_same_images(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_recording(tmp_path / name, seed=seed, recordings=1, frames=2, stills=1)

    def content(name):
        return [p.read_bytes() for p in sorted((tmp_path / name).rglob("*.jpg"))]

    assert content("a") == content("b") != content("c")


def test_inverted_grey_does_not_predict_thermal(recording):
    luma, thermals = [], []
    for rgb, thermal in pairs(recording):
        luma.append(np.asarray(rgb.convert("L").resize((80, 71)), float).ravel())
        thermals.append(np.asarray(thermal.resize((80, 71)), float).ravel())
    correlation = np.corrcoef(255 - np.concatenate(luma), np.concatenate(thermals))[0, 1]

    # Even the best brightness and contrast explain only the square of it.
    assert correlation**2 < 0.1


def test_recordings_are_by_day_and_by_night(recording):
    brightness = [np.asarray(rgb.convert("L")).mean() for rgb, _ in pairs(recording)]

    assert min(brightness) < 60 < 110 < max(brightness)


def test_images_have_regions_much_warmer_than_their_surroundings(recording):
    hottest = [np.percentile(np.asarray(thermal), 99.8) for _, thermal in pairs(recording)]

    assert np.mean(hottest) > 180
