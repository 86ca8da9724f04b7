"""Metrics of generated thermal images: features and the distances between their distributions, and
the metrics of image pairs."""

from thermal_search.metrics.cached_statistics import (
    cached_statistics_path,
    compute_statistics,
    load_cached,
    save_cached,
)
from thermal_search.metrics.extractor import Extractor, FeaturesPrecision, without_tf32
from thermal_search.metrics.extrapolation import extrapolate_to_infinity
from thermal_search.metrics.features import (
    EXTRACTORS,
    build_extractor,
    is_file,
    metric_name,
    suffix_of,
)
from thermal_search.metrics.frechet import FrechetReference, Moments, frechet_distance
from thermal_search.metrics.inception_score import ClassStatistics
from thermal_search.metrics.kid import KID, KIDReference
from thermal_search.metrics.lpips import PerceptualDistance
from thermal_search.metrics.paired import PairedMetrics, psnr, ssim
from thermal_search.metrics.protocol import Protocol
from thermal_search.metrics.statistics import Statistics

HIGHER_IS_BETTER = ("inception_score", "psnr", "ssim")
"""The starts of metrics' keys; of all others, lower is better."""

__all__ = [
    "EXTRACTORS",
    "HIGHER_IS_BETTER",
    "KID",
    "ClassStatistics",
    "Extractor",
    "FeaturesPrecision",
    "FrechetReference",
    "KIDReference",
    "Moments",
    "PairedMetrics",
    "PerceptualDistance",
    "Protocol",
    "Statistics",
    "build_extractor",
    "cached_statistics_path",
    "compute_statistics",
    "extrapolate_to_infinity",
    "frechet_distance",
    "is_file",
    "load_cached",
    "metric_name",
    "psnr",
    "save_cached",
    "ssim",
    "suffix_of",
    "without_tf32",
]
