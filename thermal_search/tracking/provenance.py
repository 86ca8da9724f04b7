"""Where a run comes from: who started it, from which code, and on which data."""

import contextlib
import getpass
import json
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from mlflow.entities import Dataset, DatasetInput, InputTag

from thermal_search.storage import Location

SOURCE = "thermal-search search"
DIGEST_LENGTH = 12
"""Of the digest that tables show; MLflow allows up to 36. The profile has the whole one."""

GIT_TIMEOUT_S = 10.0


@cache
def source_tags() -> Mapping[str, str]:
    """MLflow's tags for the columns User, Source and Version of its table of runs."""
    tags = {"mlflow.source.type": "LOCAL", "mlflow.source.name": SOURCE}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user without a name
        tags["mlflow.user"] = getpass.getuser()
    if commit := _git_commit(Path(__file__).parent):
        tags["mlflow.source.git.commit"] = commit
    return tags


def dataset_input(data: Location, digest: str, protocol: Mapping[str, str | int]) -> DatasetInput:
    """A prepared dataset as the input of a run.

    Args:
        digest: `Manifest.digest`.
        protocol: how the search measures; its images are those of the validation split.
    """
    # Like the parameters of a run, without paths of this machine.
    address = data.uri if data.scheme else data.name
    dataset = Dataset(
        name=data.name,
        digest=digest[:DIGEST_LENGTH],
        source_type=data.scheme or "local",
        source=json.dumps({"uri": address}),
        profile=json.dumps({"validation_images": protocol.get("images"), "digest": digest}),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])


def _git_commit(folder: Path) -> str | None:
    """The commit of the checkout that holds the package; None if it is installed without one."""
    git = shutil.which("git")
    if git is None:
        return None
    # Only if git knows the package's own file: an environment may lie inside another checkout.
    known = _output([git, "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"])
    return _output([git, "-C", str(folder), "rev-parse", "HEAD"]) if known else None


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.strip() or None) if done.returncode == 0 else None
