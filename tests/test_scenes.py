"""The drawn scenes: in FLIR's layout, reproducible, and warm by what things are."""

import itertools
import json

import numpy as np
from PIL import Image

from thermal_search.demo.canvas import CELSIUS, surface_table
from thermal_search.demo.materials import BRICK, CAR_BODY, CLOTHES, HOOD, INDEX, Surface
from thermal_search.demo.scenes import draw_drive, draw_recording
from thermal_search.demo.weather import Weather
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
        draw_recording(tmp_path / name, seed=seed, recordings=1, frames=2, stills=1, height=64)

    def content(name):
        return [p.read_bytes() for p in sorted((tmp_path / name).rglob("*.jpg"))]

    assert content("a") == content("b") != content("c")


def test_inverted_grey_does_not_predict_thermal(recording):
    luma, thermals = [], []
    for rgb, thermal in pairs(recording):
        luma.append(np.asarray(rgb.convert("L").resize((80, 71)), float).ravel())
        thermals.append(np.asarray(thermal.resize((80, 71)), float).ravel())
    correlation = np.corrcoef(255 - np.concatenate(luma), np.concatenate(thermals))[0, 1]

    # The square is what the best brightness and contrast explain: that a bright sky is cold.
    assert correlation**2 < 0.3


def explained(thermal, groups):
    """The fraction of the variance in the second half that the first half's means by group
    explain."""
    _, groups = np.unique(groups, return_inverse=True)
    half = len(thermal) // 2
    counts = np.bincount(groups[:half], minlength=groups.max() + 1)
    sums = np.bincount(groups[:half], thermal[:half], minlength=groups.max() + 1)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), thermal[:half].mean())
    return 1 - np.mean((thermal[half:] - means[groups[half:]]) ** 2) / thermal[half:].var()


def test_heat_follows_from_what_a_thing_is_not_from_its_color():
    colors, materials, thermals = [], [], []
    for number in range(40):
        (scene,) = draw_drive(3, number, 1, height=32)
        rgb = np.asarray(scene.rgb).reshape(-1, 3) // 32
        colors.append(rgb @ [64, 8, 1])
        materials.append(scene.materials.ravel())
        thermals.append(np.asarray(scene.thermal.resize(scene.rgb.size), float).ravel())
    colors, materials, thermals = map(np.concatenate, (colors, materials, thermals))
    by_color, by_material = explained(thermals, colors), explained(thermals, materials)

    assert by_color < 0.35
    assert by_material > 2 * by_color


def test_red_car_and_red_wall_differ_and_cars_of_all_colors_are_alike():
    weather = Weather.draw(np.random.default_rng(0), "night")
    red, blue = (0.5, 0.05, 0.05), (0.05, 0.05, 0.5)
    surfaces = [Surface(CAR_BODY, red), Surface(BRICK, red), Surface(CAR_BODY, blue)]
    red_car, red_wall, blue_car = surface_table(surfaces, weather, np.zeros(3))[:, CELSIUS]

    assert red_wall - red_car > 2
    assert red_car == blue_car


def test_driven_cars_and_people_are_the_warmest():
    celsius = {CAR_BODY.name: [], HOOD.name: [], CLOTHES.name: []}
    for number in range(8):
        (scene,) = draw_drive(5, number, 1, height=128)
        thermal = np.asarray(scene.thermal.resize(scene.rgb.size), float)
        for name, values in celsius.items():
            values.append(thermal[scene.materials == INDEX[name]])
    bodywork, hood, clothes = (np.concatenate(values).mean() for values in celsius.values())

    assert hood > bodywork + 20
    assert clothes > bodywork + 50


def test_recordings_differ_and_frames_of_one_are_alike():
    drives = [
        [np.asarray(scene.rgb, float) for scene in draw_drive(0, number, 2, height=48)]
        for number in (0, 4, 8, 12)  # all by day
    ]
    within = [np.abs(first - second).mean() for first, second in drives]
    between = [np.abs(a[0] - b[0]).mean() for a, b in itertools.combinations(drives, 2)]

    assert max(within) < min(between)


def test_recordings_are_by_day_and_by_night(recording):
    brightness = [np.asarray(rgb.convert("L")).mean() for rgb, _ in pairs(recording)]

    assert min(brightness) < 60 < 110 < max(brightness)


def test_images_have_regions_much_warmer_than_their_surroundings(recording):
    median, hottest = np.mean(
        [np.percentile(np.asarray(thermal), (50, 99.8)) for _, thermal in pairs(recording)], axis=0
    )

    assert hottest > median + 80


def test_a_warm_engine_does_not_darken_what_is_around_it():
    """Gain control is slow: what is in view does not move the gray levels of the road."""
    frames = list(draw_drive(0, 0, 12, height=64))
    thermals = [np.asarray(scene.thermal.resize(scene.rgb.size)) for scene in frames]
    road = [
        np.median(thermal[scene.materials == INDEX["road"]])
        for scene, thermal in zip(frames, thermals, strict=True)
    ]
    hottest = [np.percentile(np.asarray(scene.thermal), 99) for scene in frames]

    assert np.ptp(hottest) > 20
    assert np.ptp(road) < 30
