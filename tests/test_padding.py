import pytest
import torch
from torch import nn

from thermal_search.networks.padding import ReflectionPad


@pytest.mark.parametrize("width", [1, 2, 3])
def test_output_and_derivatives_equal_those_of_torch(width):
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    ours, torchs = ReflectionPad(width)(features), nn.ReflectionPad2d(width)(features)

    assert torch.equal(ours, torchs)
    gradient = torch.randn_like(ours)
    expected = torch.autograd.grad(torchs, features, gradient)[0]
    assert torch.allclose(torch.autograd.grad(ours, features, gradient)[0], expected)
    assert torch.autograd.gradgradcheck(lambda x: ReflectionPad(width)(x) ** 2, features)


def test_padding_keeps_the_precision_under_autocast():
    features = torch.randn(1, 2, 4, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ReflectionPad(1)(features), nn.ReflectionPad2d(1)(features).bfloat16())
        assert ReflectionPad(1)(features).dtype == torch.bfloat16
