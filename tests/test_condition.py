import pytest
import torch
import torch.nn.functional as F

from thermal_search.architectures import build
from thermal_search.networks import ConditionPyramid


def test_each_scale_is_the_averaged_picture_through_one_convolution_and_a_leaky_rectifier():
    pyramid, rgb = ConditionPyramid([4, 8], channels=5), torch.rand(2, 3, 16, 16) * 2 - 1
    for resolution in (4, 8):
        convolution = pyramid.from_rgb[str(resolution)]
        seen = F.conv2d(
            F.avg_pool2d(rgb, 16 // resolution), convolution.weight, convolution.bias, padding=1
        )
        expected = torch.where(seen > 0, seen, 0.2 * seen)
        assert torch.allclose(pyramid.features(rgb, resolution), expected, atol=1e-6)


def test_of_no_channels_it_shows_the_averaged_picture_itself():
    pyramid, rgb = ConditionPyramid([4], channels=0), torch.rand(2, 3, 16, 16)

    assert torch.allclose(pyramid.features(rgb, 4), F.avg_pool2d(rgb, 4))
    assert pyramid.concatenate(torch.zeros(2, 7, 4, 4), rgb).shape[1] == 7 + 3


@pytest.mark.parametrize("name", ["cgan", "dcgan", "improved_gan", "wgan"])
def test_an_untrained_generator_sees_the_picture_about_as_well_as_the_latent(name):
    torch.manual_seed(0)
    translator = build(name, 32, {"width": 16})
    rgb = F.interpolate(torch.rand(6, 3, 4, 4) * 2 - 1, size=32, mode="bilinear")
    translator.init_from_data(rgb)
    z = translator.draw_latent(6)
    pairs = torch.cartesian_prod(torch.arange(6), torch.arange(6))
    with torch.no_grad():
        painted = translator.translate(rgb[pairs[:, 0]], z[pairs[:, 1]])
    by_picture, by_latent = (painted.view(6, 6, -1).std(axis).mean() for axis in (0, 1))

    assert 1 / 3 < by_picture / by_latent < 3
