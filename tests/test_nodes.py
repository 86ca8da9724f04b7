"""Waiting for machines and placing slots on them, with GPUs that only Ray counts."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group
from recordings import folders

from thermal_search.errors import SearchError
from thermal_search.preparation.prepare import prepare
from thermal_search.preparation.settings import PreparationSettings
from thermal_search.tuning import nodes as machines
from thermal_search.tuning.nodes import NodeWait, wait_for, wanted
from thermal_search.tuning.placement import place_slots
from thermal_search.tuning.plan import plan_from_settings
from thermal_search.tuning.settings import SearchSettings

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
HEAD, GPU_MACHINE = {"CPU": 0.0, "node:__internal_head__": 1.0}, {"CPU": 8.0, "GPU": 1.0}
TOO_MANY = PLAN.replace(slots=3, workers=2)


@pytest.fixture(scope="module")
def cluster():
    os.environ.update(machines.ENVIRONMENT)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 0})
    for gpus in (1, 2):
        cluster.add_node(num_cpus=4, num_gpus=gpus)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def wait_for_free_machines():
    """What the test before has given back comes back a moment later."""
    deadline = time.monotonic() + 30
    while (free := ray.available_resources()).get("GPU") != 3 or free.get("CPU") != 8:
        assert time.monotonic() < deadline, free
        time.sleep(0.1)


def test_machines_that_do_not_come_are_one_sentence(cluster):
    said = []
    with pytest.raises(SearchError, match=r"not come in 0.02 minutes. 3 of 4 machines are here"):
        wait_for(PLAN, NodeWait(nodes=4, minutes=0.02), said.append)
    assert said == ["Waiting for machines. 3 of 4 machines are here (8 CPUs, 3 GPUs)."]
    with pytest.raises(SearchError, match=r"not come in .* 3 slot.* have 0, 1, 2 GPUs"):
        wait_for(TOO_MANY, NodeWait(minutes=0.02), said.append)


def test_without_patience_what_does_not_fit_is_told_at_once(cluster):
    with pytest.raises(SearchError, match=r"^3 slot\(s\) of 2 worker\(s\) with 1 GPU each do not"):
        wait_for(TOO_MANY, NodeWait(), print)


@pytest.mark.parametrize(
    ("changes", "nodes", "machines_wanted", "bundles"),
    [
        # Nothing is known of the machines to come: the first tells what the others will be.
        ({"slots": 4}, [HEAD], 1, [{"CPU": 1.0}] * 4),
        ({"slots": 4}, [HEAD, GPU_MACHINE], 1, [{"CPU": 1.0, "GPU": 1.0}] * 4),
        ({"slots": 2, "gpus_per_worker": 0.5}, [HEAD], 1, [{"CPU": 1.0, "GPU": 0.5}] * 2),
        ({}, [HEAD], 4, [{"CPU": 1.0}]),
        ({}, [HEAD, GPU_MACHINE], 4, [{"CPU": 8.0}] * 3),
        ({"slots": 2}, [HEAD, GPU_MACHINE], 2, [{"CPU": 1.0, "GPU": 1.0}] * 2),
    ],
)  # fmt: skip
def test_the_autoscaler_is_asked_for_what_the_search_will_take(
    changes, nodes, machines_wanted, bundles
):
    patience = NodeWait(nodes=machines_wanted, minutes=1)
    assert wanted(PLAN.replace(**changes), nodes, patience) == bundles


@pytest.mark.parametrize("placement", [None, "pack", "spread"])
@pytest.mark.parametrize(("workers", "gpus"), [(1, 0.5), (1, 1.0), (2, 0.5), (2, 1.0), (3, 1.0)])
def test_all_slots_of_a_layout_find_room_at_once(cluster, placement, workers, gpus):
    plan = PLAN.replace(workers=workers, gpus_per_worker=gpus, placement=placement)
    if placement == "pack" and workers == 3:
        with pytest.raises(SearchError, match="on one machine"):
            place_slots(plan, machines.present())
        return
    layout = place_slots(plan, machines.present())
    wait_for_free_machines()
    groups = [
        placement_group([layout.resources_per_worker] * workers, strategy=layout.strategy)
        for _ in range(layout.slots)
    ]
    try:
        assert layout.slots == 3 / gpus // workers
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


def test_machines_that_come_late_are_waited_for(cluster):
    said = []
    with ThreadPoolExecutor(1) as another:
        waiting = another.submit(wait_for, TOO_MANY, NodeWait(nodes=4, minutes=2), said.append)
        while not said:
            time.sleep(0.05)
        # From the main thread: Ray's processes die with the thread that started them.
        cluster.add_node(num_cpus=4, num_gpus=3)
        layout = waiting.result(60)

    assert layout.slots == 3
    assert said[0].startswith("Waiting for machines. 3 of 4")
    assert said[-1] == "Searching on 4 machine(s), 12 CPUs, 6 GPUs: 3 slot(s)"


def test_all_machines_prepare_the_dataset_that_one_process_does(cluster, tmp_path):
    root = folders(tmp_path / "raw", count=24, gap_every=8)
    digests = {
        prepare(root, tmp_path / name, PreparationSettings(size=32, **how)).digest
        for name, how in {"alone": {"workers": 1}, "all": {"address": "auto"}}.items()
    }
    assert len(digests) == 1
