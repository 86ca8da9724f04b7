"""The best generator of a search in MLflow: a logged model of its trial's run, and a version of a
registered model."""

import base64
import importlib.metadata
import io
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import LoggedModel, LoggedModelOutput, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import AnyType
from PIL import Image

from thermal_search.errors import SearchError
from thermal_search.generator import CONFIG_FILE, WEIGHTS_FILE, load_config
from thermal_search.storage import Location
from thermal_search.tracking.runs import SEARCH_TAG, TRIAL_TAG
from thermal_search.tracking.store import (
    EXPERIMENT,
    client_of,
    prepare_database,
    store_of,
    without_password,
)

ALIAS = "champion"
ARTIFACT = "generator"
"""The folder of the export among the model's artifacts."""

MODEL_CODE = Path(__file__).with_name("served_model.py")
MODEL_NAME = "generator"
"""The name of the logged model in its run."""

REQUIREMENTS = (
    "jaxtyping", "mlflow", "numpy", "opencv-python-headless", "pandas", "pillow", "pyarrow",
    "pydantic", "cyclopts", "pyyaml", "safetensors", "simplejpeg", "torch", "torchvision",
)  # fmt: skip
"""What the code of the model imports. The package itself comes with the model, as its code."""

SIGNATURE = ModelSignature(
    # A file in base64 or an array: MLflow has no type for "one of the two".
    inputs=Schema([ColSpec(AnyType(), "image")]),
    outputs=Schema([ColSpec(AnyType(), "thermal")]),
    params=ParamSchema([ParamSpec("seed", DataType.long, 0)]),
)


def register(output: Location, search_id: str, model: Location, name: str) -> str:
    """Logs an exported generator to the run of its trial and registers it as the newest version of
    the model `name`, with the alias `champion`.

    Args:
        model: the folder that the export wrote.

    Returns a sentence with the address of the model. Raises SearchError if the name is no name of a
    model, or if MLflow has no run of the trial or refuses.
    """
    require_model_name(name)
    store, config = store_of(output), load_config(model)
    prepare_database(output, print)
    # MLflow advises to add what this model has no use for.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        client = client_of(store)
        run = _run_of(client, search_id, config.trial)
        if run is None:
            raise SearchError(
                f"MLflow at {without_password(store)} has no run of trial {config.trial}: resume "
                "the search, which logs it, or set MLFLOW_TRACKING_URI to the server that has it."
            )
        logged = _log(client, run, model, step=config.images)
        version = _register(client, logged, name)
    except (MlflowException, OSError) as error:
        reason = without_password((str(error).splitlines() or [""])[0])
        raise SearchError(
            f"MLflow at {without_password(store)} does not register {name} ({reason[:300]}): the "
            "export itself is complete; run it again when MLflow works."
        ) from None
    return (
        f"Version {version} of the model {name} in MLflow is this generator, with the alias "
        f"{ALIAS}: MLFLOW_TRACKING_URI={without_password(store)} mlflow models serve "
        f"--env-manager local --model-uri models:/{name}@{ALIAS}"
    )


def require_model_name(name: str) -> None:
    """Raises SearchError if MLflow cannot have a registered model of this name."""
    if not name.strip() or any(sign in name for sign in "/:@"):
        raise SearchError(
            f"--register must name a model without '/', ':' and '@', but got {name!r}: pass a name "
            "such as rgb-to-thermal."
        )


def _run_of(client: MlflowClient, search_id: str, trial: str) -> Run | None:
    experiment = client.get_experiment_by_name(EXPERIMENT)
    condition = f"tags.`{SEARCH_TAG}` = '{search_id}' and tags.`{TRIAL_TAG}` = '{trial}'"
    runs = client.search_runs([experiment.experiment_id], condition) if experiment else []
    return runs[0] if runs else None


def _log(client: MlflowClient, run: Run, model: Location, *, step: int) -> LoggedModel:
    """Logs the generator as a model of its run."""
    # By the client alone: MLflow's shorter way sets the store of this whole process.
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=MODEL_NAME,
        source_run_id=run.info.run_id,
        params=dict(run.data.params),
        model_type="RGB to thermal generator",
    )
    with tempfile.TemporaryDirectory() as folder:
        copy, saved = Path(folder) / ARTIFACT, Path(folder) / "model"
        copy.mkdir()
        for file in (WEIGHTS_FILE, CONFIG_FILE):
            (copy / file).write_bytes((model / file).read_bytes())
        _save(saved, logged, copy)
        for cache in saved.rglob("__pycache__"):
            shutil.rmtree(cache, ignore_errors=True)
        client.log_model_artifacts(logged.model_id, str(saved))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, step)])
    return logged


def _save(folder: Path, logged: LoggedModel, export: Path) -> None:
    """Writes an MLflow model of an export to a folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's hints on type hints
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
                run_id=logged.source_run_id,
            ),
            python_model=str(MODEL_CODE),
            artifacts={ARTIFACT: str(export)},
            signature=SIGNATURE,
            input_example=_example(),
            code_paths=[str(Path(__file__).parents[1])],
            pip_requirements=_requirements(),
        )


def _register(client: MlflowClient, logged: LoggedModel, name: str) -> str:
    """Adds a version to the registered model, which it creates if there is none; returns its
    number."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name, logged.artifact_location, logged.source_run_id, model_id=logged.model_id
    )
    client.set_registered_model_alias(name, ALIAS, version.version)
    return str(version.version)


def _requirements() -> list[str]:
    return [f"{name}=={importlib.metadata.version(name)}" for name in REQUIREMENTS]


def _example() -> pd.DataFrame:
    """A request: a gradient as a PNG file in base64."""
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    pixels = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None, :], ramp[::-1, None]), axis=-1)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()]})
