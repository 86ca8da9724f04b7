import pytest
import torch
import torch.nn.functional as F
from tiny_settings import SIZE, TINY, random_batches

from thermal_search.architectures import build
from thermal_search.images import Batch
from thermal_search.networks import ConditionPyramid


def test_features_are_the_pooled_image_after_convolution_and_leaky_relu():
    pyramid, rgb = ConditionPyramid([4, 8], channels=5), torch.rand(2, 3, 16, 16) * 2 - 1
    for resolution in (4, 8):
        convolution = pyramid.from_rgb[str(resolution)]
        pooled = F.avg_pool2d(rgb, 16 // resolution)
        convolved = F.conv2d(pooled, convolution.weight, convolution.bias, padding=1)
        expected = torch.where(convolved > 0, convolved, 0.2 * convolved)
        assert torch.allclose(pyramid.encode(rgb)(resolution), expected, atol=1e-6)


def test_zero_channels_give_the_pooled_image():
    pyramid, rgb = ConditionPyramid([4], channels=0), torch.rand(2, 3, 16, 16)

    condition = pyramid.encode(rgb)
    assert torch.allclose(condition(4), F.avg_pool2d(rgb, 4))
    assert pyramid.concatenate(torch.zeros(2, 7, 4, 4), condition).shape[1] == 7 + 3


def test_none_concatenates_nothing():
    pyramid, features = ConditionPyramid([4], channels=None), torch.zeros(2, 7, 4, 4)

    assert pyramid.channels == 0
    condition = pyramid.encode(torch.rand(2, 3, 16, 16))
    assert pyramid.concatenate(features, condition) is features


@pytest.mark.parametrize("size", [16, 32])
def test_strided_encoder_has_features_at_each_resolution(size):
    pyramid = ConditionPyramid([4, 8, 16], channels=5, encoder="strided", size=size)
    condition = pyramid.encode(torch.rand(2, 3, size, size))

    assert [condition(r).shape for r in (4, 8, 16)] == [(2, 5, r, r) for r in (4, 8, 16)]


def test_strided_encoder_sees_what_pooling_averages_out():
    gray = torch.zeros(1, 3, 32, 32)
    stripes = gray + torch.tensor([1.0, -1.0]).repeat(16)

    def changes(encoder):
        torch.manual_seed(0)
        pyramid = ConditionPyramid([4, 8, 16], channels=5, encoder=encoder, size=32)
        return (pyramid.encode(stripes)(4) - pyramid.encode(gray)(4)).abs().max()

    assert changes("pooled") == 0
    assert changes("strided") > 0.05


DECODERS = [
    "biggan",
    "dcgan",
    "gan",
    "improved_gan",
    "progressive_gan",
    "stylegan",
    "wgan",
    "wgan_gp",
]


@pytest.mark.parametrize("name", DECODERS)
def test_generator_learns_its_strided_encoder(name):
    translator = build(name, SIZE, TINY[name] | {"rgb_encoder": "strided", "condition_channels": 4})
    translator.init_from_data(next(random_batches()))
    translator.begin_step(900, 1000)
    batch = next(random_batches())
    translator.translate(batch.rgb).sum().backward()
    encoder = [m for m in translator.generator.modules() if isinstance(m, ConditionPyramid)]

    assert any(m.in_channels == 4 for m in encoder[0].from_rgb.values())
    # biggan's maps of gains and biases start at 0.
    if name != "biggan":
        assert all(p.grad.any() for p in encoder[0].parameters())


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cgan", {}),
        ("dcgan", {}),
        ("dcgan", {"rgb_encoder": "strided"}),
        ("improved_gan", {}),
        ("wgan", {}),
    ],
)
def test_untrained_generator_depends_on_image_and_latent_alike(name, settings):
    torch.manual_seed(0)
    translator = build(name, 32, {"width": 16} | settings)
    rgb = F.interpolate(torch.rand(6, 3, 4, 4) * 2 - 1, size=32, mode="bilinear")
    translator.init_from_data(Batch(rgb, rgb[:, :1]))
    z = translator.draw_latent(6)
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    with torch.no_grad():
        fake = translator.translate(rgb[pairs[:, 0]], z[pairs[:, 1]])
    image_std, latent_std = (fake.view(6, 6, -1).std(axis).mean() for axis in (0, 1))

    assert 1 / 3 < image_std / latent_std < 3
