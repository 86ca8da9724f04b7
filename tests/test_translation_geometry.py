"""Images are cut to patches and joined again: exactly, in every size, and without seams."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_settings import SIZE, TINY

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.errors import SettingsError
from thermal_search.preparation.resizing import resize_square
from thermal_search.translation.geometry import cut, plan_tiles
from thermal_search.translation.rendering import colors
from thermal_search.translation.settings import TranslationSettings

TILES = TranslationSettings(tiles=True)
NATIVE = TranslationSettings(size="native")
RGB = np.random.default_rng(0).integers(0, 256, (50, 75, 3), np.uint8)


def ramp(height, width):
    """An image whose first channel is a linear function of the position."""
    rows, columns = np.mgrid[:height, :width]
    return np.repeat((rows + 2 * columns)[..., None] % 256, 3, axis=2).astype(np.uint8)


def first_channel(patches):
    """A generator that knows nothing of its surroundings."""
    return [patch[0].numpy().astype(np.float32) for patch in patches.rgb]


@pytest.mark.parametrize("settings", [TILES, NATIVE], ids=["tiles", "native"])
@pytest.mark.parametrize("shape", [(32, 32), (33, 70), (32, 96), (61, 40), (7, 50), (1, 1)])
def test_what_a_generator_does_pixel_by_pixel_is_reproduced(settings, shape):
    for rgb in (ramp(*shape), np.full((*shape, 3), 117, np.uint8)):
        patches = cut(rgb, SIZE, settings, 4)
        joined = patches.join(first_channel(patches))

        assert joined.shape == shape
        assert joined == pytest.approx(rgb[..., 0].astype(np.float32), abs=1e-4)


@pytest.mark.parametrize("overlap", [0, 1, 8, 16])
def test_tiles_share_at_least_the_overlap_and_cover_the_image(overlap):
    for length in (32, 33, 47, 64, 100):
        tiles = plan_tiles(32, length, 32, overlap)
        weights = np.zeros(length)
        for tile in tiles:
            weights[tile.left : tile.left + 32] += tile.columns

        assert [tile.left for tile in tiles][0::-1] == [0]
        assert tiles[-1].left == length - 32
        for first, second in pairwise(tiles):
            assert first.left + 32 - second.left >= overlap
        assert weights.min() > 0.1


def step_at_borders(overlap):
    """The largest step from pixel to pixel near a border of tiles, relative to elsewhere."""
    blur = torch.nn.Conv2d(1, 1, 9, padding=4, bias=False)  # zeros outside: every tile has a frame
    torch.nn.init.constant_(blur.weight, 1 / 81)
    rows, columns = np.mgrid[:64, :256]
    wave = 128 + 60 * np.sin(columns / 17) + 40 * np.cos(rows / 11)
    rgb = np.repeat(wave[..., None], 3, axis=2).astype(np.uint8)
    patches = cut(rgb, 64, TranslationSettings(tiles=True, overlap=overlap), None)
    with torch.inference_mode():
        generated = [blur(patch[None, :1].float())[0, 0].numpy() for patch in patches.rgb]
    steps = np.abs(np.diff(patches.join(generated), axis=1))[8:-8].max(0)
    lefts = [tile.left for tile in plan_tiles(64, 256, 64, overlap)]
    near = np.zeros(255, bool)
    for border in [*lefts[1:], *(left + 64 for left in lefts[:-1])]:
        near[border - 6 : border + 6] = True
    elsewhere = ~near
    elsewhere[:8] = elsewhere[-8:] = False  # the frame of the whole image
    return steps[near].max() / steps[elsewhere].max()


def test_blended_tiles_have_no_seams():
    assert step_at_borders(0) > 3  # seams, which this measure sees
    assert step_at_borders(16) < 1.6
    assert step_at_borders(32) < 1.1


def test_squeezed_image_is_resized_as_the_training_images_were():
    patches = cut(RGB, SIZE, TranslationSettings(), None)
    expected = resize_square(RGB, SIZE, "bicubic")

    assert np.array_equal(patches.rgb[0].permute(1, 2, 0).numpy(), expected)
    assert patches.join(first_channel(patches)).shape == (50, 75)


def test_padded_image_keeps_its_aspect_ratio():
    settings = TranslationSettings(fit="pad", size="generator")
    wide = cut(np.repeat(RGB[:30], 2, axis=1), SIZE, settings, None)  # 30 x 150
    tall = cut(RGB.swapaxes(0, 1), SIZE, settings.model_copy(update={"size": "image"}), None)

    assert wide.rgb[0].shape == (3, SIZE, SIZE)
    assert wide.join(first_channel(wide)).shape == (6, SIZE)
    assert tall.join(first_channel(tall)).shape == (75, 50)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_generators_of_any_size_say_so(name):
    translator = build(name, SIZE, TINY[name]).eval()
    multiple = translator.size_multiple

    assert (multiple is not None) == (name in ("cyclegan", "pix2pix", "thermalgan", "unit"))
    if multiple:
        height, width = max(multiple, 32), max(multiple, 32) + multiple
        with torch.inference_mode():
            thermal = translator.translate(torch.zeros(2, 3, height, width))
        assert thermal.shape == (2, 1, height, width)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"tiles": True, "size": "native"}, "--tiles excludes --size native: leave one"),
        ({"tiles": True, "fit": "pad"}, "--tiles excludes --fit"),
        ({"size": "native", "fit": "pad"}, "--size native excludes --fit"),
        ({"celsius": True, "depth": 16}, "--celsius excludes --depth 16"),
        ({"depth": 16, "side_by_side": True}, "--depth 16 excludes --side-by-side"),
        ({"celsius": True, "colormap": "inferno"}, "--celsius excludes --colormap"),
        ({"overlap": 4}, "--overlap is of tiles: pass --tiles too"),
    ],
)
def test_settings_that_exclude_each_other_are_one_sentence(values, sentence):
    with pytest.raises(SettingsError, match=sentence) as raised:
        TranslationSettings(**values).check()

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("infernoo", "no such colormap: did you mean inferno"),
        ("xyz", "known are gray, inferno"),
    ],
)
def test_unknown_colormap_is_one_sentence(name, sentence):
    with pytest.raises(SettingsError, match=sentence):
        colors(name)


def test_depth_is_8_or_16():
    with pytest.raises(SettingsError, match="--depth must be 8 or 16, but is 12"):
        TranslationSettings(depth=12)
