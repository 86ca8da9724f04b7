"""Fixtures that many tests use: real images, real shards, real Ray, real MLflow."""

import os
import re
from pathlib import Path
from types import SimpleNamespace

# Before any import of this project: no test may join a running cluster or log to a server.
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
# Tiny networks gain nothing from a second thread, and two processes of pytest share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers are nice by default: beside another process of pytest they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

import pytest
import pytorch_fid.inception
import torch
from jaxtyping import install_import_hook
from xdist.scheduler import LoadScopeScheduling

CHECKED = ["images", "losses", "networks", "architectures", "metrics"]
"""Packages whose annotated shapes are checked while tests run; users do not pay for it."""

with install_import_hook([f"thermal_search.{name}" for name in CHECKED], "beartype.beartype"):
    import thermal_search.architectures
    import thermal_search.metrics  # noqa: F401 - imported to be checked

from thermal_search.demo.scenes import draw_recording  # noqa: E402
from thermal_search.metrics.inception import WEIGHTS_FILE  # noqa: E402

ROADSCENE = Path(__file__).parents[2] / "shared" / "data" / "roadscene"


def _files_with(pattern: str) -> set[str]:
    files = Path(__file__).parent.glob("test_*.py")
    return {file.name for file in files if re.search(pattern, file.read_text())}


WITH_RAY = _files_with(r"pytest\.mark\.(ray|cluster|faults)")
WITH_MODULE_FIXTURES = _files_with(r'scope="module"')
"""Each process that tests a part of such a file computes its fixtures anew."""


RAY = "ray:"
"""The beginning of the scopes of files with Ray."""

LONGEST = ["test_search.py", "test_cluster.py", "test_slots.py", "test_bucket_search.py"]
"""Files that are tested first, so that the processes end at about the same time."""


class RayFirstScheduling(LoadScopeScheduling):
    """One process tests the files that start Ray, because their searches disturb each other; any
    other test runs in whichever process is free. At the end all help with Ray. Files with Ray or
    with fixtures of a module are tested as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.split("::")[0]).name
        if file in WITH_RAY:
            return f"{RAY}{file}"
        return file if file in WITH_MODULE_FIXTURES else nodeid

    def _assign_work_unit(self, node) -> None:
        def place(scope: str) -> int:
            file = scope.removeprefix(RAY)
            return LONGEST.index(file) if file in LONGEST else len(LONGEST)

        with_ray = [scope for scope in self.workqueue if scope.startswith(RAY)]
        if node is self.nodes[0]:
            chosen = min(with_ray, key=place, default=None)
        else:
            chosen = next((scope for scope in self.workqueue if not scope.startswith(RAY)), None)
        if chosen:
            self.workqueue.move_to_end(chosen, last=False)
        super()._assign_work_unit(node)


def pytest_addoption(parser):
    parser.addoption(
        "--architecture-file",
        metavar="FILE.py",
        type=Path,
        help="run the contract tests in tests/test_architectures.py on the architecture in a file",
    )


def pytest_configure(config):
    """An architecture from a file, in the tables that the contract tests read."""
    if file := config.getoption("--architecture-file"):
        import tiny_settings
        from own_architecture import add

        config.own_architecture = add(file, tiny_settings.TINY)


def pytest_collection_modifyitems(config, items):
    """With --architecture-file: only the tests of that architecture."""
    if name := getattr(config, "own_architecture", None):
        own = [
            i
            for i in items
            if name in getattr(i, "callspec", SimpleNamespace(params={})).params.values()
        ]
        config.hook.pytest_deselected(items=[item for item in items if item not in own])
        items[:] = own


def pytest_xdist_make_scheduler(config, log):
    return RayFirstScheduling(config, log)


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
    draw_recording(folder, recordings=6, frames=8, stills=8, height=96)
    return folder


@pytest.fixture(scope="session")
def dataset(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The drawn recording, prepared at 32 x 32 pixels."""
    # Here: the GPU tests also run where the libraries of preparation are not installed.
    from thermal_search.preparation.prepare import prepare
    from thermal_search.preparation.settings import PreparationSettings

    folder = tmp_path_factory.mktemp("dataset") / "prepared"
    prepare(recording, folder, PreparationSettings(size=32))
    return folder


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory):
    """A file in the right format with random weights: the real one would be a download."""
    patch = pytest.MonkeyPatch()
    patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: None)
    patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
    torch.manual_seed(0)
    network = pytorch_fid.inception.fid_inception_v3()
    patch.undo()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            # With default initialization no trace of the image is left after so many layers.
            torch.nn.init.kaiming_normal_(layer.weight)
    file = tmp_path_factory.mktemp("weights") / WEIGHTS_FILE
    torch.save(network.state_dict(), file)
    return file
