"""Placement of slots on nodes: what fits is counted node by node, never in totals."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thermal_search.errors import SearchError
from thermal_search.tuning.placement import CPU_FRACTION_FOR_SLOTS, place_slots
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings

HEAD = {"CPU": 0.0}
ONE_GPU, TWO_GPUS, FOUR_GPUS = ({"CPU": 8.0 * n, "GPU": float(n)} for n in (1, 2, 4))
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


def test_every_gpu_is_used_by_default():
    placement = place_slots(PLAN, [HEAD, ONE_GPU, TWO_GPUS])

    assert placement.slots == 3
    assert placement.resources_per_worker == {"CPU": 6.0, "GPU": 1.0}
    assert placement.threads_per_worker == 6


def test_threads_of_workers_leave_a_core_to_the_driver():
    placement = place_slots(PLAN.replace(slots=1), [{"CPU": 2.0}])

    assert placement.threads_per_worker == 1


@pytest.mark.parametrize(
    ("changes", "nodes", "slots"),
    [
        # Workers of one trial may span nodes, or must share one.
        ({"workers": 2}, [ONE_GPU] * 4, 2),
        ({"workers": 2, "placement": "spread"}, [ONE_GPU] * 4, 2),
        ({"workers": 2, "placement": "pack"}, [TWO_GPUS, TWO_GPUS], 2),
        ({"workers": 2, "placement": "pack"}, [TWO_GPUS, ONE_GPU, ONE_GPU], 1),
        ({"workers": 3, "placement": "pack"}, [TWO_GPUS, FOUR_GPUS], 1),
        # Fractions put several workers on one GPU; no worker spans two.
        ({"gpus_per_worker": 0.5}, [ONE_GPU, ONE_GPU], 4),
        ({"gpus_per_worker": 0.4}, [ONE_GPU, ONE_GPU], 4),
        ({"gpus_per_worker": 0.6}, [ONE_GPU, ONE_GPU], 2),
        ({"gpus_per_worker": 0.6}, [TWO_GPUS], 2),
        ({"gpus_per_worker": 0.3}, [FOUR_GPUS], 12),
        ({"gpus_per_worker": 2.0}, [ONE_GPU, FOUR_GPUS], 2),
        ({"gpus_per_worker": 0.0}, [TWO_GPUS], 4),
        ({"trials": 1}, [FOUR_GPUS], 1),
    ],
)
def test_slots_are_counted_node_by_node(changes, nodes, slots):
    assert place_slots(PLAN.replace(**changes), nodes).slots == slots


def test_cpus_per_worker_follow_the_node_with_the_fewest_per_gpu():
    small, large = {"CPU": 4.0, "GPU": 4.0}, {"CPU": 64.0, "GPU": 4.0}

    assert place_slots(PLAN, [small, large]).resources_per_worker == {"CPU": 0.8, "GPU": 1.0}
    assert place_slots(PLAN.replace(slots=4), [small, large]).resources_per_worker["CPU"] == 12.0


@pytest.mark.parametrize(
    ("changes", "nodes", "sentence"),
    [
        (
            {"workers": 2, "placement": "pack"},
            [ONE_GPU] * 3,
            r"1 slot\(s\) of 2 worker\(s\) on one node with 1 GPU each do not fit: the nodes "
            "have 1, 1, 1 GPUs. Lower .* or leave --placement out",
        ),
        ({"slots": 5}, [FOUR_GPUS], "5 slot.* have 4 GPUs. Lower --slots, --workers or --gpus"),
        ({"gpus_per_worker": 2.0}, [ONE_GPU, ONE_GPU], "with 2 GPU each do not fit"),
        ({}, [HEAD], "have 0 CPUs. Lower --slots or --workers"),
    ],
)
def test_slots_that_do_not_fit_are_refused_in_one_sentence(changes, nodes, sentence):
    with pytest.raises(SearchError, match=sentence):
        place_slots(PLAN.replace(**changes), nodes)


@given(
    cpus=st.lists(st.integers(1, 32), min_size=1, max_size=5),
    slots=st.integers(1, 6),
    workers=st.integers(1, 4),
    one_node=st.booleans(),
)
def test_all_slots_fit_at_once_and_leave_cpus_for_the_rest(cpus, slots, workers, one_node):
    plan = PLAN.replace(slots=slots, workers=workers, placement="pack" if one_node else None)
    nodes = [{"CPU": float(count)} for count in cpus]
    per_worker = place_slots(plan, nodes).resources_per_worker["CPU"]

    # Ray places slots one after another, wherever there is room.
    free = [CPU_FRACTION_FOR_SLOTS * count + 1e-6 for count in cpus]
    for _ in range(slots):
        room = [int(cores / per_worker) for cores in free]
        if one_node:
            node = next(n for n, count in enumerate(room) if count >= workers)
            free[node] -= workers * per_worker
            continue
        assert sum(room) >= workers
        for _ in range(workers):
            node = next(n for n, cores in enumerate(free) if cores >= per_worker)
            free[node] -= per_worker


@pytest.mark.parametrize(
    ("changes", "node", "backend"),
    [
        ({"workers": 2}, TWO_GPUS, "gloo"),  # GPUs that only Ray counts
        ({"workers": 2}, TWO_GPUS | {"accelerator_type:L4": 1.0}, "nccl"),
        ({"workers": 2, "gpus_per_worker": 0.5}, TWO_GPUS | {"accelerator_type:L4": 1.0}, "gloo"),
        ({"workers": 2, "gpus_per_worker": 0.0}, TWO_GPUS | {"accelerator_type:L4": 1.0}, "gloo"),
    ],
)
def test_nccl_is_used_between_whole_and_real_gpus_only(changes, node, backend):
    assert place_slots(PLAN.replace(**changes), [node, node]).backend == backend
