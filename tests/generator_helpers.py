"""An exported generator with untrained weights."""

import torch
from tiny_settings import SIZE, TINY

from thermal_search import generator
from thermal_search.architectures import build
from thermal_search.generator import GeneratorConfig
from thermal_search.pair_alignment import PairAlignment
from thermal_search.storage import Location

PROTOCOL = {
    "features": "efficientnet-lite0",
    "weights": "w",
    "images": 7,
    "resize": "r",
    "precision": "fp32",
}


def config_of(architecture, size=SIZE):
    return GeneratorConfig(
        architecture=architecture,
        parameters=TINY[architecture],
        size=size,
        temperatures=None,
        alignment=PairAlignment(method="none", layout="flir-v2"),
        images=1,
        metrics={"fid": 1.0},
        protocol=PROTOCOL,
        trial="t",
        objective={"fid": 1.0},
        test_metrics={},
    )


def save_untrained(folder, architecture="pix2pix", size=SIZE):
    """Writes what `thermal-search export` writes, and returns the folder."""
    torch.manual_seed(0)
    translator = build(architecture, size, TINY[architecture])
    weights = translator.generator.state_dict()
    generator.save(Location.of(folder), config_of(architecture, size), weights)
    return folder
