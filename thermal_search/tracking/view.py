"""How the MLflow UI shows a search: its runs alone, ordered by what is minimized, metrics first.

MLflow keeps the state of a shared view as JSON in a tag of the experiment, and an address names
the view. The names in that state are those of MLflow's own page.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mlflow.tracking import MlflowClient

KIND_TAG, KIND = "mlflow.experimentKind", "custom_model_development"
"""Without it, MLflow opens the page of an experiment with language models."""

VIEW_TAG = "mlflow.sharedViewState."
MODEL_SECTION, SYSTEM_SECTION = "Model metrics", "System metrics"
"""Sections of charts that MLflow names itself: metrics without a group, and `system/...`."""


@dataclass(frozen=True)
class SearchView:
    """The view of one search."""

    search_id: str
    condition: str
    """Selects the runs of the search, in MLflow's language of searches."""

    order_by: str
    """The metric that the runs are ordered by, the lowest first."""

    metrics: Sequence[str]
    """Metrics with a column of their own."""

    images: str
    """The key of the image grids."""

    def save(
        self, client: MlflowClient, experiment_id: str, groups: Collection[str] = ()
    ) -> frozenset[str]:
        """Saves the view in an experiment, unless it is there already.

        Args:
            groups: groups of metrics, which follow the metrics without a group. MLflow would show
                a group without metrics as an empty section.

        Returns these groups and those that were in the view before.
        """
        tags: Mapping[str, str] = client.get_experiment(experiment_id).tags
        name = f"{VIEW_TAG}{self.search_id}"
        known = frozenset(groups) | _groups_in(tags.get(name))
        wanted = {KIND_TAG: KIND, name: json.dumps(self._state(sorted(known)))}
        for key, value in wanted.items():
            if tags.get(key) != value:
                client.set_experiment_tag(experiment_id, key, value)
        return known

    def address(self, server: str, experiment_id: str) -> str:
        """The address of the view on a server."""
        # MLflow remembers in each browser whether it was last used for language models.
        query = f"workflowType=machine_learning&viewStateShareKey={quote(self.search_id)}"
        return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"

    def _state(self, groups: Sequence[str]) -> dict[str, Any]:
        columns = [f"metrics.`{name}`" for name in self.metrics]
        columns += [f"tags.`{name}`" for name in ("status", "stopped_at")]
        columns += [f"attributes.`{name}`" for name in ("Models", "Dataset", "Source")]
        sections = [MODEL_SECTION, *groups, SYSTEM_SECTION]
        return {
            "searchFilter": self.condition,
            "orderByKey": f"metrics.`{self.order_by}`",
            "orderByAsc": True,
            "selectedColumns": columns,
            # Otherwise metrics come last, where a narrow window does not show them.
            "columnOrder": columns,
            "columnWidths": {"attributes.`Dataset`": 160},
            "compareRunSections": [
                {"uuid": name, "name": name, "display": True, "isReordered": False}
                for name in sections
            ],
            "compareRunCharts": [self._curve(), self._grid()],
            # Keeps this order of the sections.
            "isAccordionReordered": True,
            "hideEmptyCharts": True,
        }

    def _curve(self) -> dict[str, Any]:
        return {
            "uuid": "objective",
            "type": "LINE",
            "metricSectionId": MODEL_SECTION,
            "metricKey": self.order_by,
            "displayName": self.order_by,
            "runsCountToCompare": 10,
            "xAxisKey": "step",
            "xAxisScaleType": "linear",
            "scaleType": "linear",
            "yAxisKey": "metric",
            "yAxisExpressions": [],
            "lineSmoothness": 0,
            "range": {},
            "ignoreOutliers": False,
            "useGlobalXaxisKey": True,
            "useGlobalLineSmoothing": True,
            "selectedXAxisMetricKey": "",
            "isGenerated": True,
            "deleted": False,
        }

    def _grid(self) -> dict[str, Any]:
        return {
            "uuid": "images",
            "type": "IMAGE",
            "metricSectionId": MODEL_SECTION,
            "imageKeys": [self.images],
            "step": 0,
            "showRunParams": True,
            "runsCountToCompare": 10,
            "isGenerated": True,
            "deleted": False,
        }


def _groups_in(state: str | None) -> frozenset[str]:
    """The groups of metrics in a saved view; none if it is no view of this package."""
    try:
        names = {section["name"] for section in json.loads(state or "{}")["compareRunSections"]}
    except (ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(names - {MODEL_SECTION, SYSTEM_SECTION})
