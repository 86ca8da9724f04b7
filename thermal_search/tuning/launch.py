"""Starts a search by its settings: the same for the command and for Python."""

import os

from thermal_search.errors import SettingsError
from thermal_search.tuning.dry_run import dry_run
from thermal_search.tuning.nodes import NodeWait
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.search import search
from thermal_search.tuning.settings import LaunchSettings, SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings

CLUSTER_WAIT_MINUTES = 15.0
"""Default wait for the machines of a cluster: what a cloud takes to start one and install on it."""


def launch(
    settings: SearchSettings, launch: LaunchSettings, *, default_address: str = "local"
) -> SearchRecord:
    """Runs a search to its end and returns its record.

    Args:
        default_address: the Ray cluster to join if neither `launch` nor RAY_ADDRESS names one.
    """
    plan, address, wait = _prepared(settings, launch, default_address)
    return search(
        plan,
        address=address,
        resume=launch.resume,
        storage=launch.storage,
        wait=wait,
        architecture_files=settings.architecture_file,
    )


def try_out(
    settings: SearchSettings, launch: LaunchSettings, *, default_address: str = "local"
) -> str:
    """What `launch` would do, for people: see `dry_run`."""
    if launch.resume:
        raise SettingsError("--dry-run is for a new search: leave out --resume.")
    plan, address, wait = _prepared(settings, launch, default_address)
    return dry_run(plan, address=address, wait=wait)


def _prepared(
    settings: SearchSettings, launch: LaunchSettings, default_address: str
) -> tuple[SearchPlan, str, NodeWait]:
    """The plan, the address of the Ray cluster, and how long to wait for its machines."""
    plan = plan_from_settings(settings, resume=launch.resume)
    address = launch.address or os.environ.get("RAY_ADDRESS", default_address)
    minutes = launch.wait_minutes
    if minutes is None:
        minutes = 0.0 if address == "local" else CLUSTER_WAIT_MINUTES
    return plan, address, NodeWait(launch.wait_for_nodes, minutes)
