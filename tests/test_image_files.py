"""One image file means what a viewer shows, or is refused with a reason."""

import contextlib
import io
import os
import re
import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from thermal_search.image_files import (
    Colored,
    Unusable,
    decode,
    find_images,
    image_size,
    read_image,
)

RAMP = np.linspace(0, 255, 24 * 32).reshape(24, 32).round().astype(np.uint8)
COLORS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
COUNTS = RAMP.astype(np.uint16) * 10 + 7000
GRAY, COLOR = Image.fromarray(RAMP), Image.fromarray(COLORS)


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def deep_png(channels):
    """A PNG of 16-bit channels, which Pillow cannot write."""
    height, width, count = channels.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[count]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    head = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(pixels, bits, *, photometric=1, sample_format=1):
    """A bare TIFF of one strip."""
    data, (height, width) = pixels.tobytes(), pixels.shape
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 134), (277, 3, 1), (278, 4, height), (279, 4, len(data)), (339, 3, sample_format),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag[:2], 1, tag[2]) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def reason(content, mode):
    with pytest.raises(Unusable) as refused:
        decode(content, mode)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_image_is_turned_as_its_exif_says(tmp_path, orientation, format):
    exif = Image.Exif()
    exif[274] = orientation
    (tmp_path / "a").write_bytes(encoded(COLOR, format, exif=exif, quality=97))
    with Image.open(io.BytesIO(encoded(COLOR, exif=exif))) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened)).astype(int)
    turned = read_image(tmp_path / "a", "RGB")

    assert np.abs(turned - expected).mean() < 6
    assert image_size(tmp_path / "a") == (turned.shape[1], turned.shape[0])


def test_small_decode_of_a_turned_image_is_turned():
    exif = Image.Exif()
    exif[274] = 6
    content = encoded(COLOR.resize((640, 480)), "JPEG", exif=exif)

    assert decode(content, "RGB", min_side=100).shape == (160, 120, 3)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"]
)
def test_broken_metadata_of_whole_pixels_are_no_fault(exif):
    assert np.abs(decode(encoded(GRAY, "JPEG", exif=exif), "L")[..., 0] - RAMP).max() <= 255
    assert decode(encoded(COLOR, "PNG", exif=exif), "RGB").shape == (24, 32, 3)


@pytest.mark.parametrize(
    "content",
    [
        encoded(COLOR.convert("RGBA")),
        encoded(COLOR, transparency=(1, 2, 3)),
        encoded(COLOR, "WEBP", lossless=True),
        encoded(COLOR, "TIFF", compression="tiff_lzw"),
        encoded(COLOR, "BMP"),
        encoded(COLOR, "PPM"),
        deep_png(COLORS.astype(np.uint16) * 257),
        cv2.imencode(".tif", COLORS[..., ::-1].astype(np.uint16) * 257)[1].tobytes(),
    ],
    ids=["rgba", "color key", "webp", "lzw", "bmp", "ppm", "16-bit png", "16-bit tiff"],
)
def test_rgb_of_every_kind_has_its_colors(content):
    assert np.array_equal(decode(content, "RGB"), COLORS)


@pytest.mark.parametrize("transparency", [0, bytes([255] * 60)])
def test_palette_with_transparency_has_its_colors(transparency):
    image = COLOR.quantize(64)
    content = encoded(image, transparency=transparency)
    expected = np.asarray(image.convert("RGB")).astype(int)

    assert (np.abs(decode(content, "RGB") - expected).max(2) > 0).mean() < 0.1


def test_transparent_pixels_are_black_whatever_they_hide():
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[:, :16] = 0
    pixels = decode(encoded(Image.fromarray(np.dstack([COLORS, alpha]))), "RGB")

    assert not pixels[:, :16].any()
    assert np.array_equal(pixels[:, 16:], COLORS[:, 16:])


def test_cmyk_is_close_to_its_colors():
    content = encoded(COLOR.convert("CMYK"), "JPEG", quality=97, subsampling=0)

    assert np.abs(decode(content, "RGB").astype(int) - COLORS).mean() < 5


def test_16_bit_gray_is_shown_with_its_high_byte():
    content = encoded(Image.fromarray(RAMP.astype(np.uint16) * 257))

    assert np.array_equal(decode(content, "RGB"), np.repeat(RAMP[..., None], 3, axis=2))


@pytest.mark.parametrize(
    "content",
    [
        encoded(GRAY),
        encoded(GRAY.convert("RGB")),
        encoded(GRAY.convert("RGBA")),
        encoded(GRAY.convert("LA")),
        encoded(GRAY.convert("P")),
        tiff(255 - RAMP, 8, photometric=0),
    ],
    ids=["gray", "rgb", "rgba", "gray alpha", "palette", "white is zero"],
)
def test_8_bit_thermal_of_every_kind_has_its_levels(content):
    assert np.array_equal(decode(content, "L")[..., 0], RAMP)


@pytest.mark.parametrize(
    "content",
    [
        encoded(Image.fromarray(COUNTS)),
        encoded(Image.fromarray(COUNTS), "TIFF"),
        deep_png(np.dstack([COUNTS] * 3)),
        deep_png(np.dstack([COUNTS, np.full_like(COUNTS, 65535)])),
        cv2.imencode(".tif", np.dstack([COUNTS] * 3))[1].tobytes(),
        tiff(65535 - COUNTS, 16, photometric=0),
    ],
    ids=["png", "tiff", "three channels", "alpha", "tiff of three channels", "white is zero"],
)
def test_counts_of_every_kind_are_exact(content):
    assert np.array_equal(decode(content, "counts")[..., 0], COUNTS)
    assert "16 bits per pixel" in reason(content, "L")


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (encoded(Image.fromarray(RAMP / np.float32(10)), "TIFF"), "counts", "floating-point"),
        (encoded(Image.fromarray(RAMP / np.float32(10)), "TIFF"), "L", "F pixels of 32 bits"),
        (tiff(RAMP / 10, 64, sample_format=3), "RGB", "a kind of TIFF that is not read"),
        (tiff(RAMP.astype(np.int16) * 10 - 500, 16, sample_format=2), "counts", "values from -500"),
        (deep_png(COLORS.astype(np.uint16) * 257), "counts", "different channels"),
        (encoded(COLOR), "counts", "RGB pixels; --thermal 16bit"),
        (encoded(GRAY, "TIFF", save_all=True, append_images=[GRAY]), "L", "a TIFF of 2 pages"),
    ],
)
def test_values_that_would_change_their_meaning_are_refused(content, mode, message):
    assert re.search(message, reason(content, mode))


@pytest.mark.parametrize("palette", ["JET", "HSV", "INFERNO", "HOT", "RAINBOW"])
@pytest.mark.parametrize("is_indexed", [False, True])
def test_false_colors_are_no_heat(palette, is_indexed):
    image = Image.fromarray(cv2.applyColorMap(RAMP, getattr(cv2, f"COLORMAP_{palette}")))
    with pytest.raises(Colored, match="a thermal image must be gray"):
        decode(encoded(image.quantize(256) if is_indexed else image), "L")


def test_drawn_box_makes_no_false_colors():
    pixels = np.repeat(RAMP[..., None], 3, axis=2)
    pixels[2:4, 2:20] = 0, 255, 0

    assert decode(encoded(Image.fromarray(pixels)), "L").shape == (24, 32, 1)


def test_lab_has_a_reason():
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    content = encoded(ImageCms.profileToProfile(COLOR, srgb, lab, outputMode="LAB"), "TIFF")

    assert "Lab pixels" in reason(content, "RGB")


WHOLE = [
    encoded(COLOR), encoded(COLOR, "JPEG"), encoded(COLOR, "TIFF", compression="tiff_lzw"),
    encoded(Image.fromarray(COUNTS)), encoded(COLOR, "WEBP"), encoded(COLOR.quantize(9)),
]  # fmt: skip


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.sampled_from(WHOLE),
    st.sampled_from(["RGB", "L", "counts"]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=8),
    st.integers(0, 10_000),
)
def test_damaged_file_is_pixels_or_a_reason(content, mode, changes, cut):
    damaged = bytearray(content)
    for position, value in changes:
        damaged[position % len(content)] = value
    with contextlib.suppress(Unusable):
        assert decode(bytes(damaged[: max(cut, 1)]), mode).ndim == 3


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(Unusable, match="not a file"):
            read_image(tmp_path / name, "RGB")


def test_nothing_that_looks_like_an_image_is_ignored_in_silence(tmp_path):
    for name in (
        "b.png", "a.WEBP", "notes.txt", "._a.jpg", "Thumbs.db", "phone.HEIC",
        "drive/c.jpg", "drive/deep/d.tif", "labels/a.json", ".cache/e.png",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    images, ignored = find_images(tmp_path)

    assert [path.name for path in images] == ["a.WEBP", "b.png"]
    assert [(path.name, reason.split(",")[0]) for path, reason in ignored] == [
        ("drive", "2 images in a subfolder"),
        ("phone.HEIC", ".HEIC files are not read; convert them to PNG"),
    ]
