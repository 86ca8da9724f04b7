import torch
import torch.nn.functional as F

from thermal_search.networks import ConditionPyramid


def test_each_scale_is_the_averaged_picture_through_one_convolution_and_a_leaky_rectifier():
    pyramid, rgb = ConditionPyramid([4, 8], channels=5), torch.rand(2, 3, 16, 16) * 2 - 1
    for resolution in (4, 8):
        eye = pyramid.eyes[str(resolution)]
        seen = F.conv2d(F.avg_pool2d(rgb, 16 // resolution), eye.weight, eye.bias, padding=1)
        expected = torch.where(seen > 0, seen, 0.2 * seen)
        assert torch.allclose(pyramid.at(rgb, resolution), expected, atol=1e-6)


def test_of_no_channels_it_shows_the_averaged_picture_itself():
    pyramid, rgb = ConditionPyramid([4], channels=0), torch.rand(2, 3, 16, 16)

    assert torch.allclose(pyramid.at(rgb, 4), F.avg_pool2d(rgb, 4))
    assert pyramid.beside(torch.zeros(2, 7, 4, 4), rgb).shape[1] == 7 + 3
