"""Random augmentation of training batches."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_settings import BATCH, SIZE, TINY, random_batches

from thermal_search.architectures import build
from thermal_search.distributed.worker_group import WorkerGroup
from thermal_search.images import Batch, Temperatures
from thermal_search.training.augmentation import Augmentation, crop, jitter_colors
from thermal_search.training.optimizers import build_optimizers
from thermal_search.training.step import train_step

SCALE = 286 / 256


def ramps(count=BATCH):
    """Images whose value is their column, from -1 to 1."""
    return torch.linspace(-1, 1, SIZE).expand(count, 1, SIZE, SIZE).contiguous()


def augmentation(name="pix2pix", **parameters):
    return Augmentation.of(build(name, SIZE, parameters | {"batch_size": BATCH}))


@pytest.mark.parametrize("position", [-1.0, 0.0, 1.0])
def test_crop_is_a_window_of_the_enlarged_image(position):
    columns = crop(ramps(1), SCALE, torch.tensor([[0.0, position]]))[0, 0, SIZE // 2]

    # A pixel of the crop is 1 / SCALE pixels of the image wide.
    start = (position + 1) / 2 * (SIZE - SIZE / SCALE)
    places = start + (torch.arange(SIZE) + 0.5) / SCALE - 0.5
    expected = places / (SIZE - 1) * 2 - 1
    assert torch.allclose(columns[2:-2], expected[2:-2], atol=1e-5)


def test_crop_equals_a_crop_of_pillows_enlarged_image():
    large = SIZE + 4
    image = next(random_batches(batch=1)).thermal * 0.5
    enlarged = Image.fromarray(image[0, 0].numpy()).resize((large, large), Image.Resampling.BICUBIC)
    for row, column in ((0, 0), (2, 1), (4, 4)):
        position = torch.tensor([[row, column]]) / (large - SIZE) * 2 - 1
        expected = np.array(enlarged)[row : row + SIZE, column : column + SIZE]
        assert np.allclose(crop(image, large / SIZE, position)[0, 0], expected, atol=1e-5)


def test_pairs_are_cropped_alike_and_each_at_its_own_position():
    torch.manual_seed(0)
    image = next(random_batches()).thermal
    batch = augmentation()(Batch(image.expand(-1, 3, -1, -1), image))

    assert torch.equal(batch.rgb[:, 1:2], batch.thermal)
    crops = augmentation()(Batch(ramps().expand(-1, 3, -1, -1), ramps())).thermal
    assert len({round(value, 4) for value in crops[:, 0, 0, 0].tolist()}) == BATCH


def test_unpaired_images_are_cropped_independently():
    torch.manual_seed(0)
    batch = augmentation("cyclegan")(Batch(ramps().expand(-1, 3, -1, -1), ramps()))

    assert not torch.allclose(batch.rgb[:, :1], batch.thermal, atol=1e-2)


def test_crop_is_published_where_the_authors_crop():
    scales = {
        name: augmentation(name).crop_scale
        for name in ("pix2pix", "cyclegan", "thermalgan", "cgan", "unit", "dcgan")
    }

    assert scales == {
        "pix2pix": 286 / 256,
        "cyclegan": 286 / 256,
        "thermalgan": 542 / 512,
        "cgan": 76 / 64,
        "unit": 1,
        "dcgan": 1,
    }


def test_without_augmentation_batches_are_unchanged_and_nothing_is_drawn():
    augment, batch = augmentation("unit"), next(random_batches())
    state = torch.get_rng_state()
    augmented = augment(batch)

    assert augmented.rgb is batch.rgb
    assert augmented.thermal is batch.thermal
    assert torch.equal(torch.get_rng_state(), state)


def test_color_jitter_changes_the_rgb_image_alone():
    torch.manual_seed(0)
    batch = next(random_batches())
    augmented = augmentation(crop_scale=1.0, color_jitter=0.4)(batch)

    assert augmented.thermal is batch.thermal
    assert not torch.allclose(augmented.rgb, batch.rgb, atol=0.05)
    assert augmented.rgb.abs().max() <= 1


def test_color_jitter_scales_brightness_contrast_and_saturation_within_its_strength():
    torch.manual_seed(0)
    uniform = torch.zeros(400, 3, 4, 4)  # half bright: contrast and saturation change nothing
    brightness = (jitter_colors(uniform, 0.3) + 1)[:, 0, 0, 0]
    assert 0.7 <= brightness.min() < 0.72
    assert 1.28 < brightness.max() <= 1.3
    gray = (torch.rand(1, 1, 8, 8) * 0.2 - 0.1).expand(400, 3, 8, 8)
    jittered = jitter_colors(gray, 0.3)
    assert torch.allclose(jittered[:, :1], jittered[:, 1:2], atol=1e-6)  # gray stays gray

    def contrast(rgb):
        """Brightness scales the mean as much as the differences, which contrast scales alone."""
        pixels = (rgb[:, 1] + 1) / 2
        return pixels.std((1, 2)) / pixels.mean((1, 2))

    contrasts = contrast(jittered) / contrast(gray)
    assert 0.7 - 1e-4 <= contrasts.min() < 0.72
    assert 1.28 < contrasts.max() <= 1.3 + 1e-4

    def saturation(rgb):
        """Contrast scales the differences between colors as much as those between pixels."""
        red, green, blue = rgb.unbind(1)
        luminance = 0.299 * red + 0.587 * green + 0.114 * blue
        return (red - blue).mean((1, 2)) / luminance.std((1, 2))

    colored = gray + torch.tensor([0.1, 0.0, -0.1])[:, None, None]
    saturations = saturation(jitter_colors(colored, 0.3)) / saturation(colored)
    assert 0.7 - 1e-4 <= saturations.min() < 0.72
    assert 1.28 < saturations.max() <= 1.3 + 1e-4


def test_augmentation_keeps_the_levels_of_16_bit_thermal_images():
    torch.manual_seed(0)
    temperatures = Temperatures(low=0.0, high=40.0)
    celsius = torch.linspace(20, 21, SIZE * SIZE).view(1, 1, SIZE, SIZE).expand(BATCH, -1, -1, -1)
    counts = ((celsius + 273.15) / 0.04).round().int().to(torch.uint16)
    batch = next(random_batches())
    with torch.autocast("cpu", torch.bfloat16):
        augmented = augmentation(color_jitter=0.4)(Batch(batch.rgb, temperatures.images(counts)))

    # A degree has 25 counts; with 8 bits it would have 6 levels, and bf16 would round to .3.
    restored = temperatures.celsius(augmented.thermal)
    assert augmented.thermal.dtype == torch.float32
    assert ((restored - restored.round(decimals=1)).abs() > 0.02).any()
    assert 19.95 < restored.min() < restored.max() < 21.05


def test_steps_train_on_augmented_batches():
    def losses(**parameters):
        torch.manual_seed(0)
        parameters = {"crop_scale": 1.0, "dropout": 0.0} | parameters
        translator = build("pix2pix", SIZE, TINY["pix2pix"] | parameters)
        return train_step(
            translator,
            build_optimizers(translator),
            random_batches(),
            group=WorkerGroup(),
            autocast=nullcontext(),
        )

    plain = losses(color_jitter=0.0)
    assert losses(color_jitter=0.0) == plain
    for changes in ({"color_jitter": 0.0, "crop_scale": 1.2}, {"color_jitter": 0.4}):
        assert losses(**changes) != plain


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"crop_scale": 0.9}, r"crop_scale must be at least 1, but got 0\.9"),
        ({"color_jitter": 1.5}, r"color_jitter must be from 0 to 1, but got 1\.5"),
    ],
)
def test_impossible_augmentation_is_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        build("pix2pix", SIZE, parameters)
