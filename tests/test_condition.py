import pytest
import torch
import torch.nn.functional as F

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
        assert torch.allclose(pyramid.features(rgb, resolution), expected, atol=1e-6)


def test_zero_channels_give_the_pooled_image():
    pyramid, rgb = ConditionPyramid([4], channels=0), torch.rand(2, 3, 16, 16)

    assert torch.allclose(pyramid.features(rgb, 4), F.avg_pool2d(rgb, 4))
    assert pyramid.concatenate(torch.zeros(2, 7, 4, 4), rgb).shape[1] == 7 + 3


def test_none_concatenates_nothing():
    pyramid, features = ConditionPyramid([4], channels=None), torch.zeros(2, 7, 4, 4)

    assert pyramid.channels == 0
    assert pyramid.concatenate(features, torch.rand(2, 3, 16, 16)) is features


@pytest.mark.parametrize("name", ["cgan", "dcgan", "improved_gan", "wgan"])
def test_untrained_generator_depends_on_image_and_latent_alike(name):
    torch.manual_seed(0)
    translator = build(name, 32, {"width": 16})
    rgb = F.interpolate(torch.rand(6, 3, 4, 4) * 2 - 1, size=32, mode="bilinear")
    translator.init_from_data(Batch(rgb, rgb[:, :1]))
    z = translator.draw_latent(6)
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    with torch.no_grad():
        fake = translator.translate(rgb[pairs[:, 0]], z[pairs[:, 1]])
    image_std, latent_std = (fake.view(6, 6, -1).std(axis).mean() for axis in (0, 1))

    assert 1 / 3 < image_std / latent_std < 3
