"""Trial slots on a real local Ray: many trials through few worker groups, and their failures."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import ray
from mlflow.tracking import MlflowClient
from summaries import small

from thermal_search import local_ray
from thermal_search.checkpoint import load_generator
from thermal_search.data.ray_dataset import load
from thermal_search.errors import SearchError
from thermal_search.tracking.runs import TRIAL_TAG
from thermal_search.tracking.store import store_of
from thermal_search.training.trial_plan import TrialPlan
from thermal_search.tuning import nodes
from thermal_search.tuning.placement import place_slots
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.protocol import protocol_of
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.search import run_phase, search, slot_trainable
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.mailbox import Mailbox
from thermal_search.tuning.slots.messages import (
    SlotFailure,
    StartFailure,
    TrialConfig,
    TrialReport,
)
from thermal_search.tuning.stopping import SearchStopper

pytestmark = [
    pytest.mark.ray,
    # Ray and its libraries emit warnings of their own when they start.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture(scope="module")
def cluster():
    """One Ray of two CPUs for the whole module; a search joins a Ray that is up already. Its GPU is
    only counted by Ray: nothing computes on it."""
    os.environ.update(nodes.ENVIRONMENT)
    local_ray.start(
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    yield
    ray.shutdown()


def plan_of(dataset: Path, output: Path, **changes) -> SearchPlan:
    settings = {
        "architectures": ("pix2pix", "wgan"),
        "trials": 6,
        "images": 96,
        "evaluate_every": 32,
        "features": "efficientnet-lite0",
        "reduction": 2.0,
        "average_last": 1,
        "slots": 1,
        "gpus_per_worker": 0.0,
        "fix": small(*changes.get("architectures", ("pix2pix", "wgan"))),
    }
    return plan_from_settings(SearchSettings(data=dataset, output=output, **settings | changes))


def assert_all_resources_are_released():
    """All placement groups removed, all CPUs and the GPU free."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        groups = {group["state"] for group in ray.util.placement_group_table().values()}
        free = ray.available_resources()
        if groups <= {"REMOVED"} and (free.get("CPU"), free.get("GPU")) == (2, 1):
            return
        time.sleep(0.2)
    raise AssertionError(f"{groups=} {free=}")


def assert_histories_have_no_gap_or_repeat(record: SearchRecord):
    for trial in record.trials.values():
        images = [item.images for item in trial.history]
        assert images == sorted(set(images))
        if trial.status == "completed":
            assert images[-1] >= 96


def worker_pids() -> list[int]:
    """The processes of Ray Train's workers on this machine."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if command.startswith(b"ray::") and b"RayTrainWorker" in command:
                pids.append(int(entry.name))
    return pids


def test_trials_pass_through_a_slot_and_all_resources_are_released(cluster, dataset, tmp_path):
    """A slot of two workers that share a GPU; test_shared_gpu.py has two slots of one."""
    trials = 3
    changes = {"slots": 1, "workers": 2, "gpus_per_worker": 0.5}
    plan = plan_of(dataset, tmp_path / "search", trials=trials, **changes)
    with watched_for_open_ports() as listening:
        record = search(plan)

    assert len(record.trials) == trials
    statuses = [trial.status for trial in record.trials.values()]
    assert set(statuses) <= {"completed", "stopped", "diverged"}
    assert_histories_have_no_gap_or_repeat(record)
    assert_all_resources_are_released()
    assert listening["loopback"]
    assert not listening["open"]


@contextlib.contextmanager
def watched_for_open_ports():
    """Where our processes listen meanwhile, by whether other machines reach it."""
    listening, over = {"loopback": set(), "open": set()}, threading.Event()

    def watch():
        while not over.wait(2):
            for address, command in listeners():
                is_near = address.startswith(("127.", "[::1]", "[::ffff:127."))
                listening["loopback" if is_near else "open"].add((address, command))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield listening
    finally:
        over.set()
        watching.join()


def listeners():
    """Address and command of every listening process that descends from this one."""
    sockets = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=True).stdout
    for line in sockets.splitlines():
        for pid in re.findall(r"pid=(\d+)", line):
            with contextlib.suppress(OSError):
                if os.getpid() in ancestors(int(pid)):
                    yield line.split()[3], Path(f"/proc/{pid}/cmdline").read_text()[:80]


def ancestors(pid):
    while pid:
        yield pid
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def kill_once(condition, pids, killed):
    """Kills one of `pids()` as soon as `condition()` holds.

    Ray renames a process at each of its calls, and in that moment the process has no name to be
    be found by: then it is searched for again.
    """
    while not (condition() and (victims := pids())):
        time.sleep(0.1)
    os.kill(victims[0], signal.SIGKILL)
    killed.append(victims[0])


def evaluated(output: Path, images: int):
    def check():
        try:
            record = SearchRecord.load(output)
        except SearchError:
            return False  # it has not begun
        return any(t.images >= images and t.status == "running" for t in record.trials.values())

    return check


def test_killed_worker_costs_at_most_one_evaluation_interval(cluster, dataset, tmp_path):
    """The surviving worker notices first: the trial must not fail because of it."""
    output, killed = tmp_path / "search", []
    plan = plan_of(
        dataset,
        output,
        workers=2,
        trials=1,
        architectures=("pix2pix",),
        images=96,
        evaluate_every=32,
        reduction=100.0,
    )
    killer = threading.Thread(
        target=kill_once, args=(evaluated(output, 32), worker_pids, killed), daemon=True
    )
    killer.start()
    record = search(plan)

    assert killed
    first = next(iter(record.trials.values()))
    images = [item.images for item in first.history]
    assert images == [32 * n for n in range(1, 4)]
    assert first.status == "completed"
    assert_all_resources_are_released()


def test_slot_gives_up_with_the_reason_if_no_group_gets_ready(cluster):
    mailbox = Mailbox.remote()

    def start() -> bool:
        return ray.get(mailbox.start.remote())

    assert [start() for _ in range(2)] == [True, True]
    ray.get(mailbox.ready.remote())  # a group that gets ready resets the count
    assert [start() for _ in range(3)] == [True, True, True]
    ray.get(mailbox.start_failed.remote("no such weights"))
    assert not start()
    assert ray.get(mailbox.next_report.remote("a trial")) == StartFailure("no such weights")
    assert ray.get(mailbox.next_report.remote("a trial")) == SlotFailure("no such weights")


def test_worker_that_was_cut_off_stops(cluster, tmp_path):
    """It reports after its trial has resumed elsewhere, or has ended."""
    mailbox = Mailbox.remote()
    second = TrialPlan(
        id="second", architecture="wgan", parameters={}, folder=tmp_path, images=8, evaluate_every=8
    )
    late = TrialReport(status="running")
    assert ray.get(mailbox.report.remote("first", 0, late))
    ray.get(mailbox.submit.remote("second", second))
    assert ray.get(mailbox.take.remote(5.0)) == second
    assert ray.get(mailbox.report.remote("first", 0, late))
    ray.get(mailbox.end.remote("first", TrialReport(status="failed", reason="late")))
    assert ray.get(mailbox.take.remote(5.0)) == second  # it still runs


def test_failed_trials_end_with_their_reason_and_the_slot_survives(cluster, dataset, tmp_path):
    """One raises, one diverges, one requests too much memory; the last one is fine."""
    plan = plan_of(dataset, tmp_path / "search", architectures=("pix2pix",), images=64, trials=4)
    manifest = plan.check()
    plan = plan.started_on(manifest.digest, protocol_of(plan, manifest))
    plan.output.make_folder()
    plan.save()
    record = SearchRecord.of(plan)
    configurations = [
        {"speed": 1},
        {"generator_lr": 1e30},
        {"generator_width": 2**20},
        {"generator_width": 8, "discriminator_width": 8, "batch_size": 8},
    ]
    for number, parameters in enumerate(configurations):
        record.add(number, TrialConfig("pix2pix", parameters))
    dataset = load(manifest)  # held until the search ends
    trainable = slot_trainable(plan, manifest, dataset, place_slots(plan, nodes.present()))
    run_phase("trials", record, trainable, 1, SearchStopper("the same command"))
    raised, diverged, too_large, completed = SearchRecord.load(plan.output).trials.values()

    assert raised.status == "failed"
    assert "Unknown parameters of pix2pix: speed" in raised.reason
    assert diverged.status == "diverged"
    assert "became" in diverged.reason
    assert too_large.status == "failed"
    assert "out of memory" in too_large.reason
    assert completed.status == "completed"
    assert [item.images for item in completed.history] == [32, 64]
    assert_all_resources_are_released()


def slot_pids() -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _command(entry).startswith(b"ray::ResourceTrainable")
    ]


def _command(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.faults
def test_killed_slot_is_replaced_and_its_trial_resumes(cluster, dataset, tmp_path):
    output, killed = tmp_path / "search", []
    plan = plan_of(
        dataset,
        output,
        trials=1,
        architectures=("pix2pix",),
        images=320,
        evaluate_every=64,
        reduction=100.0,
    )
    threading.Thread(
        target=kill_once, args=(evaluated(output, 128), slot_pids, killed), daemon=True
    ).start()
    record = search(plan)

    assert killed
    first = next(iter(record.trials.values()))
    assert [item.images for item in first.history] == [64 * n for n in range(1, 6)]
    assert first.status == "completed"
    assert_all_resources_are_released()


def test_trial_continues_from_another_through_the_slots(cluster, dataset, tmp_path):
    """Population based training. Four trials learn to be as bright as the thermal images; the last
    one hardly learns, until it continues from one of them."""
    settings = [(2e-3, 1000.0), (1.9e-3, 1000.0), (1.8e-3, 1000.0), (1.7e-3, 1000.0), (2e-5, 1.0)]
    first = tmp_path / "first.json"
    first.write_text(
        json.dumps(
            [
                {"architecture": "pix2pix", "parameters": {"generator_lr": lr, "l1_weight": weight}}
                for lr, weight in settings
            ]
        )
    )
    changes = {"architectures": ("pix2pix",), "trials": 5, "images": 24, "evaluate_every": 12}
    changes |= {"scheduler": "pbt", "perturb_every": 1, "objective": "l1"}
    output = tmp_path / "search"
    plan = plan_of(dataset, output, first=first, no_published=True, **changes)
    record = search(plan)

    assert {trial.status for trial in record.trials.values()} == {"completed"}
    for trial in record.trials.values():
        assert [item.images for item in trial.history] == [12, 24]
    last = record["00004"]
    assert last.exploits[0].images == 12
    assert last.proposed["generator_lr"] == 2e-5
    before, after = last.history[0].metrics["l1"], last.history[-1].metrics["l1"]
    assert after < before - 0.02
    description, _ = load_generator(record.folder(last) / "generator.pt")
    assert description.parameters == last.parameters
    assert description.images == 24
    client = MlflowClient(store_of(record.output))
    (experiment,) = [e for e in client.search_experiments() if e.name == "thermal-search"]
    runs = client.search_runs([experiment.experiment_id], f"tags.`{TRIAL_TAG}` = '00004'")
    (run,) = runs
    assert run.data.tags["pbt_parent"] == last.exploits[-1].donor
    assert run.data.tags["pbt_lineage"] == " > ".join(last.lineage)
    rates = client.get_metric_history(run.info.run_id, "pbt/generator_lr")
    assert [point.step for point in rates] == [12, 24]
    assert rates[0].value == 2e-5
    assert rates[-1].value == last.parameters["generator_lr"]
    assert run.data.params["generator_lr"] == "2e-05"
    assert_all_resources_are_released()
