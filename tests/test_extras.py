"""Without an optional dependency, a feature that needs it is refused in one sentence."""

import pytest
import torch
from torchvision.models import alexnet

from thermal_search.errors import WeightsUnavailable
from thermal_search.metrics import PerceptualDistance, lpips


def test_lpips_without_torchmetrics_names_the_extra(tmp_path, monkeypatch):
    weights = tmp_path / "alexnet.pth"
    torch.save({f"features.{k}": v for k, v in alexnet().features.state_dict().items()}, weights)
    monkeypatch.setattr(lpips, "find_spec", lambda name: None)

    with pytest.raises(WeightsUnavailable, match=r"pip install 'thermal-search\[lpips\]'"):
        PerceptualDistance(weights)
