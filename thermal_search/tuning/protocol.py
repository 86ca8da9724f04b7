"""How a search measures, and that it keeps to it."""

from collections.abc import Mapping
from typing import Any

from thermal_search.data.manifest import Manifest
from thermal_search.errors import SearchError
from thermal_search.evaluation.evaluator import full_protocol
from thermal_search.metrics import PerceptualDistance, build_extractor
from thermal_search.tuning.plan import SearchPlan


def protocol_of(plan: SearchPlan, manifest: Manifest) -> dict[str, str | int]:
    """How this search measures, by the weights on this machine; raises WeightsUnavailable."""
    extractor = build_extractor(
        plan.features, inception_weights=plan.inception_weights, precision=plan.features_precision
    )
    perceptual = PerceptualDistance(plan.lpips_weights) if plan.lpips_weights else None
    if perceptual:
        perceptual.require_size(manifest.size)
    return full_protocol(
        extractor.protocol(images=manifest.count("pairs", "val"), size=manifest.size), perceptual
    )


def require_same_protocol(protocol: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    """Raises SearchError if a search would resume with numbers that are measured differently."""
    for name in sorted({*protocol, *first}):
        if protocol.get(name) != first.get(name):
            raise SearchError(
                f"This search began with {name} {first.get(name)}, but would now measure with "
                f"{protocol.get(name)}, and its numbers would not compare: use what it began with, "
                "or start a new search."
            )
