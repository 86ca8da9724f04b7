"""What is chosen for the device at hand."""

import pytest
import torch
from tiny_settings import SIZE, TINY

from thermal_search.architectures import ARCHITECTURES, build
from thermal_search.training.hardware import use_cudnn_benchmark


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_cudnn_is_benchmarked_for_translators_that_do_not_grow(architecture):
    translator = build(architecture, SIZE, TINY[architecture])
    # A translator that grows asks for fresh optimizers at each new resolution.
    grows = any([translator.begin_step(images, 1000) for images in range(0, 1000, 10)])

    assert translator.grows == grows
    assert use_cudnn_benchmark(translator, torch.device("cuda")) == (not grows)
    assert not use_cudnn_benchmark(translator, torch.device("cpu"))
