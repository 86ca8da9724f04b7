"""How good painted thermal images are: features, their statistics, the distance between two."""

from thermal_search.metrics.features import EXTRACTORS, Extractor, build_extractor, metric_name
from thermal_search.metrics.frechet import Reference, frechet_distance
from thermal_search.metrics.inception_score import ClassStatistics
from thermal_search.metrics.reference import keep, kept_statistics, measure, reference_file
from thermal_search.metrics.statistics import Statistics

__all__ = [
    "EXTRACTORS",
    "ClassStatistics",
    "Extractor",
    "Reference",
    "Statistics",
    "build_extractor",
    "frechet_distance",
    "keep",
    "kept_statistics",
    "measure",
    "metric_name",
    "reference_file",
]
