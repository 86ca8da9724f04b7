"""How good painted thermal images are: features and the distances between their distributions, and
what is measured pair by pair."""

from thermal_search.metrics.extractor import Extractor, FeaturesPrecision, in_full
from thermal_search.metrics.extrapolation import at_infinity
from thermal_search.metrics.features import EXTRACTORS, build_extractor, is_file, metric_name
from thermal_search.metrics.frechet import Moments, Reference, frechet_distance
from thermal_search.metrics.inception_score import ClassStatistics
from thermal_search.metrics.kernel import KernelDistance, KernelReference
from thermal_search.metrics.paired import PairedMeasures, psnr, ssim
from thermal_search.metrics.perceptual import PerceptualDistance
from thermal_search.metrics.protocol import Protocol
from thermal_search.metrics.reference import keep, kept_statistics, measure, reference_file
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
    "frechet_distance",
    "in_full",
    "is_file",
    "keep",
    "kept_statistics",
    "measure",
    "metric_name",
    "psnr",
    "reference_file",
    "ssim",
]
