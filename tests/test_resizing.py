"""Decoding and resizing single images: Pillow's result, or a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from thermal_search.image_files import Unusable, decode, read_image
from thermal_search.preparation.resizing import FILTERS, resize_square


def encoded(pixels, format="JPEG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def scene(height, width, channels=3, seed=0):
    """Blobs, edges and noise, which a resize can get wrong."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (9, 11, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noisy = smooth + random.integers(-40, 40, smooth.shape)
    noisy[height // 3 : height // 2, width // 4 : width // 2] = 250
    pixels = noisy.clip(0, 255).astype(np.uint8)
    return pixels if channels == 3 else np.ascontiguousarray(pixels[..., 0])


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(("height", "width"), [(320, 400), (51, 64), (97, 41), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_matches_pillow_to_one_grey_level(filter, height, width, channels):
    pixels = scene(height, width, channels)
    expected = np.asarray(Image.fromarray(pixels).resize((64, 64), FILTERS[filter]))
    resized = resize_square(pixels.reshape(height, width, channels), 64, filter)

    difference = np.abs(resized.astype(int) - expected.reshape(64, 64, channels).astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.02


@pytest.mark.parametrize("filter", FILTERS)
def test_counts_are_resized_as_precisely_as_floats(filter):
    counts = scene(80, 100, 1).astype(np.uint16) * 9 + 6000
    exact = Image.fromarray(counts.astype(np.float32)).resize((32, 32), FILTERS[filter])
    resized = resize_square(counts[..., None], 32, filter)

    assert resized.dtype == np.uint16
    assert np.abs(resized[..., 0] - np.asarray(exact)).max() <= 0.51


@pytest.mark.parametrize(
    ("mode", "content"),
    [
        ("RGB", encoded(scene(60, 80))),
        ("RGB", encoded(scene(60, 80, 1))),
        ("L", encoded(scene(60, 80, 1))),
        ("L", encoded(np.repeat(scene(60, 80, 1)[..., None], 3, axis=2))),
        ("RGB", encoded(scene(60, 80), progressive=True, quality=70)),
        ("RGB", encoded(scene(60, 80), "PNG")),
        ("L", encoded(scene(60, 80, 1), "TIFF")),
    ],
)
def test_images_are_decoded_like_pillow(mode, content):
    expected = np.asarray(Image.open(io.BytesIO(content)).convert(mode)).astype(int)
    decoded = decode(content, mode)

    assert np.abs(decoded.astype(int) - expected.reshape(decoded.shape)).max() <= 1


@pytest.mark.parametrize("cut", [3, 40, 700, -30])
def test_truncated_jpeg_is_corrupt(cut):
    with pytest.raises(Unusable, match="corrupt"):
        decode(encoded(scene(200, 300))[:cut], "RGB")


def test_decompression_bomb_is_refused_before_it_is_decoded():
    file = io.BytesIO()
    Image.new("L", (30000, 30000)).save(file, "PNG")
    with pytest.raises(Unusable, match="too large to be an image"):
        decode(file.getvalue(), "RGB")


def test_empty_foreign_and_missing_files_have_reasons(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "foreign.jpg").write_text("no image at all")
    reasons = []
    for name in ("empty.jpg", "foreign.jpg", "missing.jpg"):
        with pytest.raises(Unusable) as caught:
            read_image(tmp_path / name, "RGB")
        reasons.append(str(caught.value))

    assert reasons == [
        "corrupt (the file is empty)",
        "corrupt (not an image)",
        "unreadable (No such file or directory)",
    ]


def test_fast_decode_keeps_the_minimum_side():
    content = encoded(scene(800, 900), quality=92)

    assert decode(content, "RGB", min_side=512).shape == (800, 900, 3)
    assert decode(content, "RGB", min_side=256).shape == (400, 450, 3)
    assert decode(content, "RGB", min_side=100).shape == (100, 113, 3)


def test_fast_decode_is_close_to_the_full_decode():
    content = encoded(scene(800, 900), quality=92)
    full, fast = (
        resize_square(decode(content, "RGB", min_side=min_side), 128, "bicubic").astype(int)
        for min_side in (0, 256)
    )

    assert np.abs(full - fast).mean() < 1


def test_other_bit_depths_have_reasons():
    counts = scene(20, 30, 1).astype(np.uint16) * 100
    with pytest.raises(Unusable, match="16 bits per pixel"):
        decode(encoded(counts, "PNG"), "L")
    with pytest.raises(Unusable, match="reads 16-bit images of one channel"):
        decode(encoded(scene(20, 30), "PNG"), "counts")

    for format in ("PNG", "TIFF"):
        assert np.array_equal(decode(encoded(counts, format), "counts")[..., 0], counts)
