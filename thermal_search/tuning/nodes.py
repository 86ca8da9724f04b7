"""The nodes of the Ray cluster that a search runs on: joining it, and waiting for its nodes."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from thermal_search import local_ray
from thermal_search.errors import SearchError
from thermal_search.tuning.placement import Node, gpus_per_worker, place_slots
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.slots.config import SlotPlacement

POLL_INTERVAL_S = 1.0
NODE_CHECK_S = 2.0

ENVIRONMENT = {
    # Under `uv run`, Ray would build a second environment for every worker.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # Watches for preemption notices of a cloud: one process for each slot, and no one reads them.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    # Detects a dead worker in a fraction of a second.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    # Tune's loggers would write again what summary.json and MLflow hold.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Tune's state is never read: the record of the search holds everything.
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    # The search says in a sentence why a slot was lost.
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # The search itself handles Ctrl-C.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # No messages from Ray about its output formats.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def join(address: str) -> None:
    """Joins the Ray cluster at `address`, or starts one on this machine alone ("local").

    Raises SearchError if no cluster answers, or if it refuses this machine's token.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    if ray.is_initialized():
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address == "local":
        local_ray.start(include_dashboard=False, **settings)
        return
    # Workers on other nodes do not inherit this process's environment.
    variables = {name: os.environ[name] for name in ENVIRONMENT}
    local_ray.connect(address, runtime_env={"env_vars": variables}, **settings)


@dataclass(frozen=True)
class NodeWait:
    """How long a search waits for nodes that are still starting."""

    min_nodes: int = 1
    """Nodes to wait for, the head included. Those that --slots needs are waited for in any case."""

    timeout_minutes: float = 0.0
    """0 does not wait: what is missing is an error at once."""


def wait_for(plan: SearchPlan, wait: NodeWait, report: Callable[[str], None]) -> SlotPlacement:
    """Returns the placement of the slots, as soon as enough nodes have joined the cluster.

    Requests missing nodes from the cluster's autoscaler, if it has one. `report` receives one line
    for each change. Raises SearchError after the timeout: what is missing, and what to do.
    """
    started, reported = time.monotonic(), ""
    requested: list[dict[str, float]] = []
    try:
        while True:
            nodes = present()
            placement, missing = _try_to_place(plan, nodes, wait)
            if placement and not missing:
                report(
                    f"Searching on {len(nodes)} node(s), {_total(nodes)}: {placement.slots} slot(s)"
                )
                return placement
            if time.monotonic() - started >= wait.timeout_minutes * 60:
                raise SearchError(_timed_out(wait, missing) if wait.timeout_minutes else missing)
            # Again after the first node has joined: its resources predict those of the others.
            if (bundles := required_bundles(plan, nodes, wait)) != requested:
                request_resources(bundles=bundles)
                requested = bundles
            if missing != reported:
                reported = missing
                report(f"Waiting for nodes. {missing}")
            time.sleep(POLL_INTERVAL_S)
    finally:
        # From now on the slots' placement groups hold the nodes; idle ones may shut down. The call
        # also withdraws the request of an earlier search that was killed while it waited: a
        # request outlives its process.
        request_resources(bundles=[])


def _try_to_place(
    plan: SearchPlan, nodes: list[Node], wait: NodeWait
) -> tuple[SlotPlacement | None, str]:
    """The placement, if the slots fit, and a sentence about what is still missing."""
    try:
        placement, missing = place_slots(plan, nodes), ""
    except SearchError as error:
        placement, missing = None, str(error)
    if len(nodes) < wait.min_nodes:
        missing = f"{len(nodes)} of {wait.min_nodes} nodes have joined ({_total(nodes)})."
    return placement, missing


def required_bundles(plan: SearchPlan, nodes: list[Node], wait: NodeWait) -> list[dict[str, float]]:
    """The resource bundles to request from the autoscaler: those in use included, as it counts."""
    with_cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    heads = len(nodes) - len(with_cpus)
    if with_cpus and len(nodes) < wait.min_nodes:
        # One bundle fills a node: the autoscaler packs smaller ones before it starts another node.
        return [{"CPU": max(with_cpus)}] * (wait.min_nodes - heads)
    gpus = gpus_per_worker(plan, nodes)
    worker = {"CPU": 1.0} | ({"GPU": gpus} if gpus else {})
    return [worker] * ((plan.slots or 1) * plan.workers)


def _timed_out(wait: NodeWait, missing: str) -> str:
    return (
        f"The nodes have not joined within {wait.timeout_minutes:g} minutes. {missing} Run `ray "
        "status` on the head to learn why, or pass a larger --wait-minutes."
    )


def present() -> list[Node]:
    """The resources of each node of the joined cluster that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _total(nodes: list[Node]) -> str:
    totals = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    return ", ".join(f"{total:g} {name}s" for name, total in totals.items() if total) or "no CPUs"


@contextlib.contextmanager
def watch_this_node(report_loss: Callable[[str], None]) -> Generator[None]:
    """A context in which `report_loss` gets the reason if the node of this process leaves the
    cluster: its raylet was killed. Ray would wait for it forever."""
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(NODE_CHECK_S):
            with contextlib.suppress(RayError):
                if not _this_node()["Alive"]:
                    report_loss(
                        "Ray has ended on the machine that the search runs on (its raylet was "
                        "killed, perhaps because memory ran out)"
                    )
                    return

    thread = threading.Thread(target=watch, name="node", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()


def _this_node() -> dict[str, Any]:
    """What Ray knows of the node of this process."""
    here = ray.get_runtime_context().get_node_id()
    (node,) = (node for node in ray.nodes() if node["NodeID"] == here)
    return node
