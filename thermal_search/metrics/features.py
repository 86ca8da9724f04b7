"""The networks whose features a distance is measured on, by name or from a file."""

import re
from collections.abc import Callable
from pathlib import Path

import torch

from thermal_search.errors import MetricError, nearest
from thermal_search.metrics.efficientnet import build_efficientnet
from thermal_search.metrics.encoder_files import SUFFIXES, build_encoder
from thermal_search.metrics.extractor import Extractor, FeaturesPrecision


def _build_inception(weights: Path | None, precision: FeaturesPrecision) -> Extractor:
    # Here: pytorch-fid imports torchvision, which takes two seconds.
    from thermal_search.metrics.inception import build_inception

    return build_inception(weights, precision)


EXTRACTORS: dict[str, Callable[[Path | None, FeaturesPrecision], Extractor]] = {
    "inception": _build_inception,
    "efficientnet-lite0": build_efficientnet,
}


def is_file(features: str) -> bool:
    """Whether these features are an encoder's file rather than a name."""
    return features not in EXTRACTORS and Path(features).suffix.lower() in SUFFIXES


def suffix_of(metric: str) -> str:
    """The end of the keys of all metrics on the features of this Frechet distance: empty on
    Inception's."""
    return metric.removeprefix("fid").removeprefix("fd")


def metric_name(features: str) -> str:
    """The key of the Frechet distance on these features.

    `fid` is the distance on pytorch-fid's Inception features and no other; the key of an encoder
    from a file has the file's stem. Raises MetricError for unknown features.
    """
    if features == "inception":
        return "fid"
    if features in EXTRACTORS:
        return f"fd_{features.replace('-', '_')}"
    if is_file(features):
        return "fd_" + re.sub(r"[^a-z0-9]+", "_", Path(features).stem.lower()).strip("_")
    files = f"{', '.join(EXTRACTORS)}, and an encoder's file ({' or '.join(SUFFIXES)})"
    raise MetricError(
        f"Unknown features {features!r}: {nearest(features, list(EXTRACTORS), otherwise=files)}"
    )


def build_extractor(
    features: str,
    *,
    inception_weights: Path | None = None,
    precision: FeaturesPrecision = "fp32",
    device: torch.device | None = None,
) -> Extractor:
    """The extractor of this name or file, on `device` (default: the CPU).

    Raises WeightsUnavailable if its weights cannot be loaded, MetricError for unknown features.
    """
    metric = metric_name(features)
    if is_file(features):
        extractor = build_encoder(Path(features), metric, precision)
    else:
        extractor = EXTRACTORS[features](inception_weights, precision)
    return extractor.to(device or torch.device("cpu"))
