import pytest
import torch
from torch import nn

from thermal_search.networks.padding import Reflect


@pytest.mark.parametrize("width", [1, 2, 3])
def test_it_pads_as_torch_does_and_so_do_its_derivatives(width):
    features = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    ours, torchs = Reflect(width)(features), nn.ReflectionPad2d(width)(features)

    assert torch.equal(ours, torchs)
    slope = torch.randn_like(ours)
    expected = torch.autograd.grad(torchs, features, slope)[0]
    assert torch.allclose(torch.autograd.grad(ours, features, slope)[0], expected)
    assert torch.autograd.gradgradcheck(lambda x: Reflect(width)(x) ** 2, features)


def test_it_stays_in_the_precision_it_is_given():
    features = torch.randn(1, 2, 4, 4).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Reflect(1)(features), nn.ReflectionPad2d(1)(features).bfloat16())
        assert Reflect(1)(features).dtype == torch.bfloat16
