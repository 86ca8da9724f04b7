"""Alignment: known alignments are cut correctly, and unknown ones are estimated."""

import cv2
import numpy as np
import pytest
from PIL import Image

from thermal_search.errors import DatasetError
from thermal_search.image_files import Unusable
from thermal_search.preparation.alignment.edge_matching import distance, search
from thermal_search.preparation.alignment.estimation import (
    MeasuredAlignment,
    align_recordings,
    estimate_box,
)
from thermal_search.preparation.alignment.geometry import (
    WHOLE,
    Boxes,
    Center,
    Homography,
    Table,
    overlap,
    read_homographies,
)
from thermal_search.preparation.alignment.modes import complete_alignments
from thermal_search.preparation.conversion import convert_frame
from thermal_search.preparation.frame_images import open_pair
from thermal_search.preparation.layouts.contents import SourceFrame
from thermal_search.preparation.settings import PreparationSettings


def gradient(width, height):
    """An image whose pixels encode their coordinates."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.dstack([x, y, x]).round().astype(np.uint8)


def test_wider_view_is_cropped_to_its_center():
    rgb, thermal = gradient(1800, 1600), gradient(640, 512)[..., :1]
    cut, whole = Center().cut(rgb, thermal, (1800, 1600))

    # tan(45/2) / tan(52.8/2), and the same number of square pixels along the other side.
    assert cut.shape[1] == pytest.approx(1800 * 0.8344, abs=1)
    assert cut.shape[0] == pytest.approx(1800 * 0.8344 * 512 / 640, abs=2)
    assert whole.shape == thermal.shape
    assert abs(int(cut[0, 0, 0]) + int(cut[-1, -1, 0]) - 255) <= 1


def test_thermal_is_cropped_if_rgb_has_the_narrower_view():
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
def test_known_crops_have_the_aspect_ratio_of_thermal(size, rgb, thermal):
    left, right = Table().cut(gradient(*size), gradient(640, 512), size)

    assert (left.shape[1], left.shape[0]) == rgb
    assert (right.shape[1], right.shape[0]) == thermal


def test_size_without_a_known_crop_is_named():
    with pytest.raises(Unusable, match="no known crop for RGB of 999 x 666 pixels"):
        Table().cut(gradient(999, 666), gradient(640, 512), (999, 666))


@pytest.mark.parametrize("shrunk", [1, 2])
def test_homography_maps_each_thermal_pixel_to_its_rgb_pixel(shrunk):
    # Thermal pixel (x, y) lies at RGB (2 x + 100, 2 y + 60), even if RGB was read at half size.
    homography = Homography((2, 0, 100, 0, 2, 60, 0, 0, 1))
    rgb = gradient(1600, 1200)
    small = np.asarray(Image.fromarray(rgb).resize((1600 // shrunk, 1200 // shrunk)))
    left, right = homography.cut(small, gradient(640, 512)[..., :1], (1600, 1200))
    resized = cv2.resize(left, (640, 512), interpolation=cv2.INTER_AREA)

    x, y = np.meshgrid(2 * np.arange(640) + 100, 2 * np.arange(512) + 60)
    assert right.shape[:2] == (512, 640)
    assert np.abs(resized[..., 0] - x * 255 / 1599).max() < 1.5
    assert np.abs(resized[..., 1] - y * 255 / 1199).max() < 1.5


def test_region_outside_of_rgb_is_cut_from_both():
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
        ("no json", "must be JSON"),
        ("[]", "must map recordings"),
        ('{"a": [[1, 0], [0, 1]]}', "must be 3 x 3 finite numbers"),
        ('{"a": [[1, 0, 0], [0, 1, 0], [0, 0, NaN]]}', "must be 3 x 3 finite numbers"),
        ('{"a": [[1, 0, 0], [1, 0, 0], [0, 0, 1]]}', "that can be inverted"),
        ('{"a": [[1, 0, "x"], [0, 1, 0], [0, 0, 1]]}', "must be 3 x 3 finite numbers"),
    ],
)
def test_bad_homography_file_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "h.json").write_text(content)
    with pytest.raises(DatasetError, match=sentence):
        read_homographies(tmp_path / "h.json")


def test_recordings_without_an_alignment_get_the_median_or_are_named():
    measured = [
        MeasuredAlignment("a", Boxes(rgb=(0.1, 0.1, 0.9, 0.9)), 0.5, 1.0, 9),
        MeasuredAlignment("b", None, None, None, 0),
    ]
    complete, notes = complete_alignments(measured, "auto")

    assert complete["b"] == complete["a"]
    assert "1 recordings could not be aligned by their edges" in notes[0]
    with pytest.raises(DatasetError, match=r"h.json has no matrix for 1 recordings \(first: b\)"):
        complete_alignments(measured, "homography:h.json")
    with pytest.raises(DatasetError, match="found no recording whose edges match"):
        complete_alignments(measured[1:], "auto")


class SerialPool:
    """Maps in this process."""

    def map(self, function, items):
        return map(function, items)


def cut(image, box):
    height, width = image.shape[:2]
    left, top, right, bottom = (round(s * n) for s, n in zip(box, (width, height) * 2, strict=True))
    exact = (left / width, top / height, right / width, bottom / height)
    return np.ascontiguousarray(image[top:bottom, left:right]), exact


def misaligned(roadscene, rgb_box, thermal_box, first, count=24):
    """Gray pairs whose images show different regions, and the boxes of thermal in RGB."""
    pairs, boxes = [], []
    for path in sorted((roadscene / "visible").iterdir())[first : first + 3 * count : 3]:
        frame = SourceFrame(
            path, next((roadscene / "infrared").glob(f"{path.stem}.*")), "r", path.stem
        )
        rgb, thermal = open_pair(frame)
        rgb, rgb_exact = cut(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), rgb_box)
        thermal, thermal_exact = cut(thermal, thermal_box)
        across, down = rgb_exact[2] - rgb_exact[0], rgb_exact[3] - rgb_exact[1]
        boxes.append(
            (
                (thermal_exact[0] - rgb_exact[0]) / across,
                (thermal_exact[1] - rgb_exact[1]) / down,
                (thermal_exact[2] - rgb_exact[0]) / across,
                (thermal_exact[3] - rgb_exact[1]) / down,
            )
        )
        pairs.append((rgb, thermal))
    return pairs, boxes


@pytest.fixture(scope="module")
def own_box(roadscene):
    """The box of thermal in RGB in RoadScene's original pairs, which are not perfectly aligned."""
    pairs, _ = misaligned(roadscene, WHOLE, WHOLE, first=0)
    return estimate_box(pairs)


@pytest.mark.parametrize(
    ("rgb_box", "thermal_box"),
    [
        (WHOLE, (0.03, 0.05, 0.83, 0.85)),
        ((0.05, 0.1, 0.85, 0.9), WHOLE),
        ((0.0, 0.04, 0.92, 0.96), (0.06, 0.0, 0.98, 0.92)),
    ],
    ids=["0.80", "1.25", "shifted"],
)
def test_estimated_alignment_is_within_a_pixel(roadscene, own_box, rgb_box, thermal_box):
    pairs, boxes = misaligned(roadscene, rgb_box, thermal_box, first=0)
    box = estimate_box(pairs)
    left, top, right, bottom = np.median(boxes, axis=0)
    # RoadScene's own error is moved along.
    width, height = rgb_box[2] - rgb_box[0], rgb_box[3] - rgb_box[1]
    edges = thermal_box
    expected = (
        left + (own_box[0] * (1 - edges[0]) + (own_box[2] - 1) * edges[0]) / width,
        top + (own_box[1] * (1 - edges[1]) + (own_box[3] - 1) * edges[1]) / height,
        right + (own_box[0] * (1 - edges[2]) + (own_box[2] - 1) * edges[2]) / width,
        bottom + (own_box[1] * (1 - edges[3]) + (own_box[3] - 1) * edges[3]) / height,
    )

    assert box
    assert distance(own_box, WHOLE, 256) < 2
    assert distance(box, expected, 256) < 1


def test_images_of_different_scenes_are_not_aligned(roadscene):
    pairs, _ = misaligned(roadscene, WHOLE, WHOLE, first=0)
    mismatched = [(pairs[i][0], pairs[(i + 12) % 24][1]) for i in range(24)]
    matches = [search(*pair).score for pair in mismatched]

    assert np.median(matches) < np.median([search(*pair).score for pair in pairs])
    assert estimate_box([(np.zeros((50, 60), np.uint8), np.zeros((50, 60), np.uint8))] * 9) is None


def test_remaining_error_is_measured(roadscene):
    frames = [
        SourceFrame(path, next((roadscene / "infrared").glob(f"{path.stem}.*")), "r", path.stem)
        for path in sorted((roadscene / "visible").iterdir())[:60]
    ]
    original, shifted = (
        next(iter(align_recordings(frames, {"*": Boxes(rgb=box)}, 256, SerialPool())))
        for box in (WHOLE, (0.03, 0.0, 1.0, 0.97))
    )

    assert original.remaining_error is not None
    assert shifted.remaining_error is not None
    assert original.remaining_error < 2
    assert shifted.remaining_error == pytest.approx(0.03 * 256 / 0.97, abs=2)
    assert original.entry().remaining_error_px == round(original.remaining_error, 2)


def test_pair_is_cut_before_it_is_resized(tmp_path):
    Image.fromarray(gradient(256, 256)).save(tmp_path / "rgb.png")
    Image.fromarray(gradient(100, 80)[..., 0]).save(tmp_path / "thermal.png")
    frame = SourceFrame(tmp_path / "rgb.png", tmp_path / "thermal.png", "r", "n", same_size=True)
    settings = PreparationSettings(size=64)
    converted = convert_frame(frame, settings, Boxes(rgb=(0.25, 0.25, 0.5, 0.5)))

    assert converted.rgb == gradient(256, 256)[64:128, 64:128].transpose(2, 0, 1).tobytes()
    assert len(converted.thermal) == 64 * 64
    assert "mismatched" in convert_frame(frame, settings).fault
