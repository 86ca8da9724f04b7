"""How good painted thermal images are: features and the distances between their distributions, and
what is measured pair by pair."""

from thermal_search.metrics.cached_statistics import (
    cached_statistics_path,
    keep,
    load_cached,
    measure,
)
from thermal_search.metrics.extractor import Extractor, FeaturesPrecision, without_tf32
from thermal_search.metrics.extrapolation import at_infinity
from thermal_search.metrics.features import EXTRACTORS, build_extractor, is_file, metric_name
from thermal_search.metrics.frechet import Moments, Reference, frechet_distance
from thermal_search.metrics.inception_score import ClassStatistics
from thermal_search.metrics.kid import KernelDistance, KernelReference
from thermal_search.metrics.paired import PairedMeasures, psnr, ssim
from thermal_search.metrics.perceptual import PerceptualDistance
from thermal_search.metrics.protocol import Protocol
from thermal_search.metrics.statistics import Statistics

__all__ = [
    "EXTRACTORS",
    "ClassStatistics",
    "Extractor",
    "FeaturesPrecision",
    "KernelDistance",
    "KernelReference",
    "Moments",
    "PairedMeasures",
    "PerceptualDistance",
    "Protocol",
    "Reference",
    "Statistics",
    "at_infinity",
    "build_extractor",
    "cached_statistics_path",
    "frechet_distance",
    "is_file",
    "keep",
    "load_cached",
    "measure",
    "metric_name",
    "psnr",
    "ssim",
    "without_tf32",
]
