"""An exported generator with untrained weights."""

import torch
from tiny_settings import SIZE, TINY

from thermal_search import generator
from thermal_search.architectures import build
from thermal_search.generator import GeneratorConfig
from thermal_search.storage import Location

PROTOCOL = {
    "features": "efficientnet-lite0",
    "weights": "w",
    "images": 7,
    "resize": "r",
    "precision": "fp32",
}


def save_untrained(folder, architecture="pix2pix", size=SIZE):
    """Writes what `thermal-search export` writes, and returns the folder."""
    torch.manual_seed(0)
    translator = build(architecture, size, TINY[architecture])
    config = GeneratorConfig(
        architecture=architecture,
        parameters=TINY[architecture],
        size=size,
        temperatures=None,
        images=1,
        metrics={"fid": 1.0},
        protocol=PROTOCOL,
        trial="t",
        objective={"fid": 1.0},
        test_metrics={},
    )
    generator.save(Location.of(folder), config, translator.generator.state_dict())
    return folder
