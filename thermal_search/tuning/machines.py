"""The machines a search runs on: joining or starting Ray, and how many slots they hold."""

import os
from dataclasses import dataclass
from typing import Any

import ray

from thermal_search.errors import SearchError
from thermal_search.tuning.plan import SearchPlan

SHARE_FOR_SLOTS = 0.8
"""Of all CPUs. The rest is for Ray Data and for the searching process itself."""

ENVIRONMENT = {
    # Under `uv run`, Ray would build a second environment for every worker.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Watches for cloud notices on every worker group; a process a slot that we do not need.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # A dead worker is noticed in a fraction of a second.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Our record and MLflow hold what Tune's own loggers would write again.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's own state is small; saved often, a crash of the driver loses no trial.
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
    # No messages from Ray about its own output formats.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True)
class Layout:
    """How the slots of a search lie on the machines."""

    slots: int
    resources_per_worker: dict[str, float]
    threads_per_worker: int


def join(address: str) -> None:
    """Joins the Ray cluster at `address`, or starts one of this machine ("local")."""
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    if ray.is_initialized():
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address == "local":
        ray.init(address="local", include_dashboard=False, **settings)
        return
    # Workers on other machines do not inherit this process's environment.
    ours = {name: os.environ[name] for name in ENVIRONMENT}
    try:
        ray.init(address=address, runtime_env={"env_vars": ours}, **settings)
    except ConnectionError:
        raise SearchError(
            f"No Ray cluster answers at {address!r}: start one (ray start --head), or pass "
            "--address local to use this machine alone."
        ) from None


def lay_out(plan: SearchPlan) -> Layout:
    """Fits the plan's slots onto the joined machines; raises SearchError where they do not fit.

    Every slot keeps its resources for the whole search, so all of them must fit at once: one that
    waited for another would hold its trial until the search is over.
    """
    cluster = ray.cluster_resources()
    cpus, gpus = cluster.get("CPU", 1.0), cluster.get("GPU", 0.0)
    per_worker = plan.gpus_per_worker
    if per_worker is None:
        per_worker = 1.0 if gpus else 0.0
    if per_worker:
        fitting = int(gpus / (per_worker * plan.workers) + 1e-9)
        if not fitting or (plan.slots or 1) > fitting:
            raise SearchError(
                f"{plan.slots or 1} slot(s) of {plan.workers} worker(s) with {per_worker:g} GPU "
                f"each need {(plan.slots or 1) * plan.workers * per_worker:g} GPUs, but the "
                f"machines have {gpus:g}: lower --slots, --workers or --gpus-per-worker."
            )
        slots = plan.slots or fitting
    else:
        # One slot a core, up to four: each also costs the memory of its networks.
        slots = plan.slots or max(1, min(int(cpus) // plan.workers, 4))
    slots = min(slots, plan.trials)
    share = cpus * SHARE_FOR_SLOTS / (slots * plan.workers)
    # Ray takes fractions below one CPU and whole numbers above.
    share = float(int(share)) if share >= 1 else max(round(share, 4), 0.001)
    resources = {"CPU": share} | ({"GPU": per_worker} if per_worker else {})
    threads = max(1, int(cpus / (slots * plan.workers)))
    return Layout(slots, resources, threads)
