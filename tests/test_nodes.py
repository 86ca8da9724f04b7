"""Waiting for nodes and placing slots on them, with GPUs that exist in Ray's count only."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group
from recordings import folders

from thermal_search import local_ray
from thermal_search.errors import SearchError
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.tuning.nodes import (
    ENVIRONMENT,
    NodeWait,
    present,
    required_bundles,
    wait_for,
)
from thermal_search.tuning.placement import place_slots
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]
PLAN = plan_from_settings(
    SearchSettings(
        data=Path("d"),
        output=Path("o"),
        architectures=("wgan",),
        trials=60,
        images=10,
        evaluate_every=5,
    )
)
HEAD, GPU_NODE = {"CPU": 0.0, "node:__internal_head__": 1.0}, {"CPU": 8.0, "GPU": 1.0}
TOO_MANY = PLAN.replace(slots=3, workers=2)


@pytest.fixture(scope="module")
def cluster():
    os.environ.update(ENVIRONMENT)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    for gpus in (1, 2):
        cluster.add_node(num_cpus=4, num_gpus=gpus)
    # Not ray.init: this process may have had a Ray of its own, with a token.
    local_ray.connect(cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def wait_for_free_nodes():
    """Ray counts the resources that the test before released a moment later."""
    deadline = time.monotonic() + 30
    while (free := ray.available_resources()).get("GPU") != 3 or free.get("CPU") != 8:
        assert time.monotonic() < deadline, free
        time.sleep(0.1)


def test_missing_nodes_are_an_error_after_the_timeout(cluster):
    reports = []
    with pytest.raises(SearchError, match=r"not joined within 0.02 minutes. 3 of 4 nodes have"):
        wait_for(PLAN, NodeWait(min_nodes=4, timeout_minutes=0.02), reports.append)
    assert reports == ["Waiting for nodes. 3 of 4 nodes have joined (8 CPUs, 3 GPUs)."]
    with pytest.raises(SearchError, match=r"not joined within .* 3 slot.* have 0, 1, 2 GPUs"):
        wait_for(TOO_MANY, NodeWait(timeout_minutes=0.02), reports.append)


def test_without_a_timeout_slots_that_do_not_fit_are_an_error_at_once(cluster):
    with pytest.raises(SearchError, match=r"^3 slot\(s\) of 2 worker\(s\) with 1 GPU each do not"):
        wait_for(TOO_MANY, NodeWait(), print)


@pytest.mark.parametrize(
    ("changes", "nodes", "min_nodes", "bundles"),
    [
        # Before the first node has joined, the resources of the others are unknown.
        ({"slots": 4}, [HEAD], 1, [{"CPU": 1.0}] * 4),
        ({"slots": 4}, [HEAD, GPU_NODE], 1, [{"CPU": 1.0, "GPU": 1.0}] * 4),
        ({"slots": 2, "gpus_per_worker": 0.5}, [HEAD], 1, [{"CPU": 1.0, "GPU": 0.5}] * 2),
        ({}, [HEAD], 4, [{"CPU": 1.0}]),
        ({}, [HEAD, GPU_NODE], 4, [{"CPU": 8.0}] * 3),
        ({"slots": 2}, [HEAD, GPU_NODE], 2, [{"CPU": 1.0, "GPU": 1.0}] * 2),
    ],
)  # fmt: skip
def test_search_requests_the_bundles_it_will_use(changes, nodes, min_nodes, bundles):
    wait = NodeWait(min_nodes=min_nodes, timeout_minutes=1)
    assert required_bundles(PLAN.replace(**changes), nodes, wait) == bundles


@pytest.mark.parametrize("placement", [None, "pack", "spread"])
@pytest.mark.parametrize(("workers", "gpus"), [(1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0), (3, 1.0)])
def test_ray_can_reserve_all_slots_of_a_placement_at_once(cluster, placement, workers, gpus):
    plan = PLAN.replace(workers=workers, gpus_per_worker=gpus, placement=placement)
    if placement == "pack" and workers == 3:
        with pytest.raises(SearchError, match="on one node"):
            place_slots(plan, present())
        return
    slot_placement = place_slots(plan, present())
    wait_for_free_nodes()
    groups = [
        placement_group(
            [slot_placement.resources_per_worker] * workers, strategy=slot_placement.strategy
        )
        for _ in range(slot_placement.slots)
    ]
    try:
        assert slot_placement.slots == 3 / gpus // workers
        for group in groups:
            assert group.wait(30)
            table = ray.util.placement_group_table(group)
            used = len(set(table["bundles_to_node_id"].values()))
            if placement == "pack":
                assert used == 1
            if placement == "spread" and workers == 2 and group is groups[0]:
                assert used == 2
    finally:
        for group in groups:
            remove_placement_group(group)


def test_search_starts_when_the_last_node_joins(cluster):
    reports, wait = [], NodeWait(min_nodes=4, timeout_minutes=2)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(wait_for, TOO_MANY, wait, reports.append)
        while not reports:
            time.sleep(0.05)
        # From the main thread: Ray's processes die with the thread that started them.
        cluster.add_node(num_cpus=4, num_gpus=3)
        slot_placement = waiting.result(60)

    assert slot_placement.slots == 3
    assert reports[0].startswith("Waiting for nodes. 3 of 4")
    assert reports[-1] == "Searching on 4 node(s), 12 CPUs, 6 GPUs: 3 slot(s)"


def test_preparation_on_all_nodes_equals_preparation_in_one_process(cluster, tmp_path):
    root = folders(tmp_path / "raw", count=24, gap_every=8)
    digests = {
        prepare(root, tmp_path / name, PreparationSettings(size=32, **options)).digest
        for name, options in {"one": {"workers": 1}, "all": {"address": "auto"}}.items()
    }
    assert len(digests) == 1
