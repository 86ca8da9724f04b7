"""What many tests share. Fixtures are real: real shards, real Ray, real MLflow."""

import os
from pathlib import Path

import pytest

ROADSCENE = Path(__file__).parents[2] / "shared" / "data" / "roadscene"


def pytest_configure() -> None:
    # Set before Ray is imported: no test may join a cluster somebody left behind.
    os.environ.pop("RAY_ADDRESS", None)
    os.environ.pop("MLFLOW_TRACKING_URI", None)


@pytest.fixture(scope="session")
def roadscene() -> Path:
    """176 real, aligned pairs; not part of the project."""
    folder = Path(os.environ.get("THERMAL_SEARCH_ROADSCENE", ROADSCENE))
    if not folder.is_dir():
        pytest.skip(f"RoadScene is not at {folder.name} beside the project")
    return folder
