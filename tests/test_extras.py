"""Without an optional dependency, a feature that needs it is refused in one sentence. Pinned
packages can be installed."""

import re
import tomllib
from importlib.metadata import distributions

import pytest
import torch
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from torchvision.models import alexnet
from wheels import ROOT

from thermal_search.errors import WeightsUnavailable
from thermal_search.metrics import PerceptualDistance, lpips


def test_lpips_without_torchmetrics_names_the_extra(tmp_path, monkeypatch):
    weights = tmp_path / "alexnet.pth"
    torch.save({f"features.{k}": v for k, v in alexnet().features.state_dict().items()}, weights)
    monkeypatch.setattr(lpips, "find_spec", lambda name: None)

    with pytest.raises(WeightsUnavailable, match=r"pip install 'thermal-search\[lpips\]'"):
        PerceptualDistance(weights)


def test_pinned_packages_allow_every_python_that_the_project_does():
    """pip refuses a pin that needs a later patch release than the system's Python may have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = f"{project['requires-python'].removeprefix('>=')}.0"
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    installed = {canonicalize_name(d.metadata["Name"]): d.metadata for d in distributions()}
    needs = {
        name: installed[name].get("Requires-Python") or ""
        for name in map(canonicalize_name, pinned)
        if name in installed
    }

    assert len(needs) > 100
    assert {name for name, need in needs.items() if oldest not in SpecifierSet(need)} == set()
