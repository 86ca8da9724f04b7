"""Alignment: what is known is cut where it should be, what is not is found again."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from thermal_search.errors import DatasetError
from thermal_search.preparation.alignment.edge_matching import distance, search
from thermal_search.preparation.alignment.estimation import Found, align, estimate
from thermal_search.preparation.alignment.geometry import (
    WHOLE,
    Boxes,
    Center,
    Homography,
    Table,
    overlap,
    read_homographies,
)
from thermal_search.preparation.alignment.modes import choose, settle
from thermal_search.preparation.decoding import Unusable
from thermal_search.preparation.layouts.frame import Frame
from thermal_search.preparation.resizing import ResizeConfig, open_pair, resize


def gradient(width, height):
    """Every pixel tells its own place."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.dstack([x, y, x]).round().astype(np.uint8)


def test_the_centre_of_the_wider_camera_is_kept():
    rgb, thermal = gradient(1800, 1600), gradient(640, 512)[..., :1]
    cut, whole = Center().cut(rgb, thermal, (1800, 1600))

    # tan(45/2) / tan(52.8/2), and the same in square pixels across the other side.
    assert cut.shape[1] == pytest.approx(1800 * 0.8344, abs=1)
    assert cut.shape[0] == pytest.approx(1800 * 0.8344 * 512 / 640, abs=2)
    assert whole.shape == thermal.shape
    assert abs(int(cut[0, 0, 0]) + int(cut[-1, -1, 0]) - 255) <= 1


def test_where_rgb_sees_less_thermal_is_cut():
    rgb, thermal = gradient(640, 512), gradient(640, 512)[..., :1]
    whole, cut = Center(52.8, 45).cut(rgb, thermal, (640, 512))

    assert whole.shape == rgb.shape
    assert cut.shape[1] == pytest.approx(640 * 0.8344, abs=1)


@pytest.mark.parametrize(
    ("size", "rgb", "thermal"),
    [
        ((1800, 1600), (1600, 1280), (640, 512)),
        ((720, 480), (480, 384), (640, 512)),
        ((1280, 1024), (1280, 1024), (520, 416)),
        ((2048, 1536), (2048, 1536), (480, 384)),
    ],
)
def test_known_crops_keep_the_shape_of_thermal(size, rgb, thermal):
    left, right = Table().cut(gradient(*size), gradient(640, 512), size)

    assert (left.shape[1], left.shape[0]) == rgb
    assert (right.shape[1], right.shape[0]) == thermal


def test_a_size_without_a_known_crop_is_named():
    with pytest.raises(Unusable, match="no known crop for RGB of 999 x 666 pixels"):
        Table().cut(gradient(999, 666), gradient(640, 512), (999, 666))


@pytest.mark.parametrize("shrunk", [1, 2])
def test_a_homography_takes_each_thermal_pixel_to_its_rgb_pixel(shrunk):
    # Thermal pixel (x, y) lies at RGB (2 x + 100, 2 y + 60), also where RGB was read at half size.
    homography = Homography((2, 0, 100, 0, 2, 60, 0, 0, 1))
    rgb = gradient(1600, 1200)
    small = np.asarray(Image.fromarray(rgb).resize((1600 // shrunk, 1200 // shrunk)))
    left, right = homography.cut(small, gradient(640, 512)[..., :1], (1600, 1200))
    found = cv2.resize(left, (640, 512), interpolation=cv2.INTER_AREA)

    x, y = np.meshgrid(2 * np.arange(640) + 100, 2 * np.arange(512) + 60)
    assert right.shape[:2] == (512, 640)
    assert np.abs(found[..., 0] - x * 255 / 1599).max() < 1.5
    assert np.abs(found[..., 1] - y * 255 / 1199).max() < 1.5


def test_what_lies_outside_of_rgb_is_cut_from_both():
    centered = Homography((1, 0, -64, 0, 1, -51.2, 0, 0, 1))
    left, right = centered.cut(gradient(512, 410), gradient(640, 512)[..., :1], (512, 410))

    assert left.shape[:2] == right.shape[:2]
    assert 0.75 < right.shape[1] / 640 < 0.85
    with pytest.raises(Unusable, match="leads out of the RGB image"):
        Homography((1, 0, 5000, 0, 1, 0, 0, 0, 1)).cut(
            gradient(512, 410), gradient(640, 512)[..., :1], (512, 410)
        )
    assert overlap((-0.5, 0, 0.5, 1)) == Boxes(rgb=(0, 0, 0.5, 1), thermal=(0.5, 0, 1, 1))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("no json", "is no JSON"),
        ("[]", "must map recordings"),
        ('{"a": [[1, 0], [0, 1]]}', "must be 3 x 3 finite numbers"),
        ('{"a": [[1, 0, 0], [0, 1, 0], [0, 0, NaN]]}', "must be 3 x 3 finite numbers"),
        ('{"a": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}', "that can be inverted"),
        ('{"a": [[1, 0, "x"], [0, 1, 0], [0, 0, 1]]}', "must be 3 x 3 finite numbers"),
    ],
)
def test_a_bad_homography_file_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "h.json").write_text(content)
    with pytest.raises(DatasetError, match=sentence):
        read_homographies(tmp_path / "h.json")


def test_recordings_without_an_alignment_are_named_or_get_that_of_the_others():
    found = [
        Found("a", Boxes(rgb=(0.1, 0.1, 0.9, 0.9)), 0.5, 1.0, 9),
        Found("b", None, None, None, 0),
    ]
    settled, notes = settle(found, "auto")

    assert settled["b"] == settled["a"]
    assert "1 recordings could not be aligned by their edges" in notes[0]
    with pytest.raises(DatasetError, match=r"h.json has no matrix for 1 recordings \(first: b\)"):
        settle(found, "homography:h.json")
    with pytest.raises(DatasetError, match="found no recording whose edges match"):
        settle(found[1:], "auto")
    with pytest.raises(DatasetError, match="--align must be none, center, table"):
        choose("sideways", (45, 52.8))
    with pytest.raises(DatasetError, match="two angles between 0 and 180"):
        choose("center", (0, 52.8))


class Here:
    """Does the work in this process."""

    def map(self, function, items):
        return map(function, items)


def cut(image, box):
    height, width = image.shape[:2]
    left, top, right, bottom = (round(s * n) for s, n in zip(box, (width, height) * 2, strict=True))
    exact = (left / width, top / height, right / width, bottom / height)
    return np.ascontiguousarray(image[top:bottom, left:right]), exact


def misaligned(roadscene, rgb_box, thermal_box, first, count=24):
    """Grey pairs of which each sees another part of the scene, and where thermal lies in RGB."""
    pairs, places = [], []
    for path in sorted((roadscene / "visible").iterdir())[first : first + 3 * count : 3]:
        frame = Frame(path, next((roadscene / "infrared").glob(f"{path.stem}.*")), "r", path.stem)
        rgb, thermal = open_pair(frame)
        rgb, seen = cut(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), rgb_box)
        thermal, hot = cut(thermal, thermal_box)
        across, down = seen[2] - seen[0], seen[3] - seen[1]
        places.append(
            (
                (hot[0] - seen[0]) / across,
                (hot[1] - seen[1]) / down,
                (hot[2] - seen[0]) / across,
                (hot[3] - seen[1]) / down,
            )
        )
        pairs.append((rgb, thermal))
    return pairs, places


@pytest.fixture(scope="module")
def own_place(roadscene):
    """Where thermal lies in RGB in RoadScene's pairs themselves, not quite aligned."""
    pairs, _ = misaligned(roadscene, WHOLE, WHOLE, first=0)
    return estimate(pairs)


@pytest.mark.parametrize(
    ("rgb_box", "thermal_box"),
    [
        (WHOLE, (0.03, 0.05, 0.83, 0.85)),
        ((0.05, 0.1, 0.85, 0.9), WHOLE),
        ((0.0, 0.04, 0.92, 0.96), (0.06, 0.0, 0.98, 0.92)),
    ],
    ids=["0.80", "1.25", "shifted"],
)
def test_auto_finds_a_recordings_alignment_within_a_pixel(
    roadscene, own_place, rgb_box, thermal_box
):
    pairs, places = misaligned(roadscene, rgb_box, thermal_box, first=0)
    found = estimate(pairs)
    left, top, right, bottom = np.median(places, axis=0)
    # The known move takes RoadScene's own error along.
    width, height = rgb_box[2] - rgb_box[0], rgb_box[3] - rgb_box[1]
    shares = thermal_box
    expected = (
        left + (own_place[0] * (1 - shares[0]) + (own_place[2] - 1) * shares[0]) / width,
        top + (own_place[1] * (1 - shares[1]) + (own_place[3] - 1) * shares[1]) / height,
        right + (own_place[0] * (1 - shares[2]) + (own_place[2] - 1) * shares[2]) / width,
        bottom + (own_place[1] * (1 - shares[3]) + (own_place[3] - 1) * shares[3]) / height,
    )

    assert found
    assert distance(own_place, WHOLE, 256) < 2
    assert distance(found, expected, 256) < 1


def test_pictures_of_different_scenes_are_not_aligned(roadscene):
    pairs, _ = misaligned(roadscene, WHOLE, WHOLE, first=0)
    strangers = [(pairs[i][0], pairs[(i + 12) % 24][1]) for i in range(24)]
    matches = [search(*pair).score for pair in strangers]

    assert np.median(matches) < np.median([search(*pair).score for pair in pairs])
    assert estimate([(np.zeros((50, 60), np.uint8), np.zeros((50, 60), np.uint8))] * 9) is None


def test_the_remaining_error_is_measured(roadscene):
    frames = [
        Frame(path, next((roadscene / "infrared").glob(f"{path.stem}.*")), "r", path.stem)
        for path in sorted((roadscene / "visible").iterdir())[:60]
    ]
    as_it_is, shifted = (
        next(iter(align(frames, {"*": Boxes(rgb=box)}, 256, Here())))
        for box in (WHOLE, (0.03, 0.0, 1.0, 0.97))
    )

    assert as_it_is.remaining is not None
    assert shifted.remaining is not None
    assert as_it_is.remaining < 2
    assert shifted.remaining == pytest.approx(0.03 * 256 / 0.97, abs=2)
    assert json.dumps(as_it_is.told())


def test_a_pair_is_cut_before_it_is_squashed(tmp_path):
    Image.fromarray(gradient(256, 256)).save(tmp_path / "rgb.png")
    Image.fromarray(gradient(100, 80)[..., 0]).save(tmp_path / "thermal.png")
    frame = Frame(tmp_path / "rgb.png", tmp_path / "thermal.png", "r", "n", same_size=True)
    done = resize(frame, ResizeConfig(64), Boxes(rgb=(0.25, 0.25, 0.5, 0.5)))

    assert done.rgb == gradient(256, 256)[64:128, 64:128].transpose(2, 0, 1).tobytes()
    assert len(done.thermal) == 64 * 64
    assert "mismatched" in resize(frame, ResizeConfig(64)).fault
