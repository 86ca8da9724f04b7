"""The machines a search runs on: joining or starting Ray, and waiting for those that come."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import AuthenticationError

from thermal_search import local_ray
from thermal_search.errors import SearchError
from thermal_search.tuning.placement import Node, SlotPlacement, gpus_per_worker, place_slots
from thermal_search.tuning.plan import SearchPlan

LOOK_EVERY_S = 1.0

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


def join(address: str) -> None:
    """Joins the Ray cluster at `address`, or starts one of this machine ("local")."""
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    if ray.is_initialized():
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address == "local":
        local_ray.start(include_dashboard=False, **settings)
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
    except AuthenticationError:
        raise SearchError(
            f"The Ray cluster at {address!r} wants another token than this machine's: copy "
            "~/.ray/auth_token from the head of the cluster and set RAY_AUTH_MODE=token."
        ) from None


@dataclass(frozen=True)
class NodeWait:
    """How long a search waits for machines that are still starting."""

    nodes: int = 1
    """Machines to wait for; those that --slots needs are waited for in any case."""

    minutes: float = 0.0


def wait_for(plan: SearchPlan, patience: NodeWait, tell: Callable[[str], None]) -> SlotPlacement:
    """The layout on the joined machines, as soon as enough of them are there.

    Asks the cluster's autoscaler, where it has one, for the machines that are missing. Raises
    SearchError when they have not come in time: what is missing, and what to do.
    """
    began, told = time.monotonic(), ""
    asked: list[dict[str, float]] = []
    try:
        while True:
            nodes = present()
            layout, missing = _fit(plan, nodes, patience)
            if layout and not missing:
                tell(f"Searching on {len(nodes)} machine(s), {_sum(nodes)}: {layout.slots} slot(s)")
                return layout
            if time.monotonic() - began >= patience.minutes * 60:
                raise SearchError(missing if not patience.minutes else _too_late(patience, missing))
            # Again when the first machine has come: what it is tells what the others will be.
            if (missed := wanted(plan, nodes, patience)) != asked:
                request_resources(bundles=missed)
                asked = missed
            if missing != told:
                told = missing
                tell(f"Waiting for machines. {missing}")
            time.sleep(LOOK_EVERY_S)
    finally:
        # From here on the slots hold what they need; an idle cluster shall shrink again. Also after
        # a search that was killed while it waited: its request outlives it.
        request_resources(bundles=[])


def _fit(
    plan: SearchPlan, nodes: list[Node], patience: NodeWait
) -> tuple[SlotPlacement | None, str]:
    """The layout, where there is one, and what is still missing."""
    try:
        layout, missing = place_slots(plan, nodes), ""
    except SearchError as error:
        layout, missing = None, str(error)
    if len(nodes) < patience.nodes:
        missing = f"{len(nodes)} of {patience.nodes} machines are here ({_sum(nodes)})."
    return layout, missing


def wanted(plan: SearchPlan, nodes: list[Node], patience: NodeWait) -> list[dict[str, float]]:
    """What to ask the autoscaler for: in all, what is here included, as it counts."""
    computing = [node["CPU"] for node in nodes if node.get("CPU")]
    heads = len(nodes) - len(computing)
    if computing and len(nodes) < patience.nodes:
        # Whole machines, for it fills up the ones it has before it starts another.
        return [{"CPU": max(computing)}] * (patience.nodes - heads)
    gpus = gpus_per_worker(plan, nodes)
    worker = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
    return [worker] * ((plan.slots or 1) * plan.workers)


def _too_late(patience: NodeWait, missing: str) -> str:
    return (
        f"The machines have not come in {patience.minutes:g} minutes. {missing} `ray status` on "
        "the head tells why; --wait-minutes waits longer."
    )


def present() -> list[Node]:
    """What each machine of the joined cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _sum(nodes: list[Node]) -> str:
    totals = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    return ", ".join(f"{total:g} {name}s" for name, total in totals.items() if total) or "no CPUs"
