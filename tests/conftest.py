"""What many tests share. Fixtures are real: real pictures, real shards, real Ray, real MLflow."""

import os
from pathlib import Path

# Before anything of ours is imported: no test joins a cluster somebody left behind, or logs to
# somebody's server.
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
# Tiny networks gain nothing by a second thread, and two processes of pytest share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import pytorch_fid.inception
import torch
from jaxtyping import install_import_hook

CHECKED = ["images", "losses", "networks", "architectures", "metrics"]
"""Where the shapes in annotations are checked while the tests run; users pay nothing."""

with install_import_hook([f"thermal_search.{name}" for name in CHECKED], "beartype.beartype"):
    import thermal_search.architectures
    import thermal_search.metrics  # noqa: F401 - imported to be checked

from thermal_search.dataset.preparation import prepare  # noqa: E402
from thermal_search.demo.scenes import draw_recording  # noqa: E402
from thermal_search.metrics.inception import WEIGHTS_FILE  # noqa: E402

ROADSCENE = Path(__file__).parents[2] / "shared" / "data" / "roadscene"


def starts_ray(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("ray", "cluster", "faults"))


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests that start Ray run one after the other, in one process."""
    if starts_ray(item):
        item.add_marker(pytest.mark.xdist_group("ray"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """They come first: they are the longest row."""
    items.sort(key=lambda item: not starts_ray(item))


@pytest.fixture(scope="session")
def roadscene() -> Path:
    """176 real, aligned pairs; not part of the project."""
    folder = Path(os.environ.get("THERMAL_SEARCH_ROADSCENE", ROADSCENE))
    if not folder.is_dir():
        pytest.skip("RoadScene is not here: set THERMAL_SEARCH_ROADSCENE to its folder")
    return folder


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn recording in the FLIR ADAS v2 layout, with stills."""
    folder = tmp_path_factory.mktemp("recording") / "drawn"
    draw_recording(folder, recordings=6, frames=8, stills=8)
    return folder


@pytest.fixture(scope="session")
def dataset(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn recording, prepared at 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("dataset") / "prepared"
    prepare(recording, folder, size=32)
    return folder


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A file of the right form with random weights: the real one is a download."""
    patch = pytest.MonkeyPatch()
    patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: None)
    patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    torch.manual_seed(0)
    network = pytorch_fid.inception.fid_inception_v3()
    patch.undo()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            # As drawn by default, nothing of a picture is left after so many layers.
            torch.nn.init.kaiming_normal_(layer.weight)
    file = tmp_path_factory.mktemp("weights") / WEIGHTS_FILE
    torch.save(network.state_dict(), file)
    return file
