"""What a generator is better at than the baselines, measure by measure."""

from collections.abc import Mapping
from dataclasses import dataclass

from thermal_search.evaluation.baselines import (
    MEAN_THERMAL,
    RIDGE,
    TRIVIAL_BASELINE,
    Baselines,
)
from thermal_search.metrics import HIGHER_IS_BETTER, suffix_of

COMPARED = (TRIVIAL_BASELINE, MEAN_THERMAL, RIDGE)
"""The baselines that generate a thermal image from an RGB image, as a generator does."""

EDGES_NOTE = (
    "Inverted grey has the sharp edges of real images: with few images its distance is low. "
    "Compare L1 and PSNR too, and look at the images."
)


@dataclass(frozen=True)
class Comparison:
    """One baseline beside a generator."""

    baseline: str
    better: dict[str, tuple[float, float]]
    """The measures in which the generator is better, with its value and the baseline's."""

    not_better: dict[str, tuple[float, float]]

    @property
    def measures(self) -> str:
        """The names of the measures in which the generator is better."""
        return ", ".join(self.better) or "nothing"

    def sentence(self) -> str:
        """The comparison with its values."""
        parts = [
            f"{words} in {', '.join(_text(*item) for item in measures.items())}"
            for words, measures in (("better", self.better), ("not better", self.not_better))
            if measures
        ]
        return f"Against {display_name(self.baseline)}: {'; '.join(parts)}."


def compare(metrics: Mapping[str, float], baselines: Baselines, metric: str) -> list[Comparison]:
    """Compares a generator's metrics with each baseline that generates images.

    `metric` is the key of the Frechet distance. The measures are the distance, KID, L1, PSNR and
    LPIPS, if both sides have them.
    """
    keys = {
        "distance": metric,
        "KID": f"kid{suffix_of(metric)}",
        "L1": "l1",
        "PSNR": "psnr",
        "LPIPS": "lpips",
    }  # fmt: skip
    comparisons: list[Comparison] = []
    for name in COMPARED:
        baseline = baselines.get(name, {})
        values = {
            measure: (metrics[key], baseline[key])
            for measure, key in keys.items()
            if key in metrics and key in baseline
        }
        better = {m: pair for m, pair in values.items() if _is_better(keys[m], *pair)}
        not_better = {m: pair for m, pair in values.items() if m not in better}
        if values:
            comparisons.append(Comparison(name, better, not_better))
    return comparisons


def comparison_tags(comparisons: list[Comparison]) -> dict[str, str]:
    """Tags of an MLflow run: for each baseline, the measures in which the generator is better."""
    return {f"better_than_{c.baseline}": c.measures for c in comparisons}


def needs_edges_note(comparisons: list[Comparison]) -> bool:
    """Whether inverted grey has the lower distance."""
    return any(c.baseline == TRIVIAL_BASELINE and "distance" in c.not_better for c in comparisons)


def display_name(baseline: str) -> str:
    return baseline.replace("_", " ")


def _is_better(key: str, value: float, baseline: float) -> bool:
    return value > baseline if key.startswith(HIGHER_IS_BETTER) else value < baseline


def _text(measure: str, values: tuple[float, float]) -> str:
    value, baseline = values
    return f"{measure} ({value:.4g} against {baseline:.4g})"
