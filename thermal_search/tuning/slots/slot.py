"""A trial slot: one long-lived Ray Train worker group through which Ray Tune's trials flow.

A worker group takes most of a minute to start, because each of its processes imports torch. One
group per trial costs that minute every time, and a trial that is stopped early leaves its resources
reserved. A slot starts its group once; the next trial begins a fraction of a second after the last.

Some processes of each slot only wait: Ray Tune's end, the mailbox and Ray Train's controller. What
they import does not import torch, without which each takes a sixth of the memory. They may run on
any node that has CPUs, and if that node is lost, the slot starts again on another.
"""

import contextlib
import threading
import time
from dataclasses import replace
from typing import Any

import ray
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from thermal_search.distributed.rendezvous import Rendezvous
from thermal_search.storage import Location
from thermal_search.tuning.slots.config import SlotConfig, WorkerConfig
from thermal_search.tuning.slots.mailbox import NAME_PREFIX, Mailbox
from thermal_search.tuning.slots.messages import (
    REPORT,
    START_FAILURE,
    SlotFailure,
    StartFailure,
    TrialConfig,
    TrialReport,
)

WORKER_CONFIG = "worker"
"""The key of the WorkerConfig in the configuration of Ray Train's training function."""

WORKER_DEATHS_PER_SLOT = 100
"""How often a slot's group may restart in all. Finite: the mailbox fails a trial that keeps losing
its workers, but an error may strike before a worker reaches the mailbox."""

CLOSE_TIMEOUT_S = 60.0
"""How long a slot waits for its workers to leave, at the end of the search."""

STOP_TIMEOUT_S = 2.0
"""The same if the search stops before its end: workers that train do not leave before the next
evaluation. They end with the slot; what they have evaluated is saved."""


class Slot(tune.Trainable):
    """The slot as Ray Tune's trainable. One `step` is one evaluation of the current trial."""

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride] - tune.with_parameters adds it
        self, config: dict[str, Any], *, slot: SlotConfig
    ) -> None:
        self.slot_config = slot
        self.placement_groups = slot.placement_groups
        # A new name each time: Ray Train would resume a slot of the same name.
        self.name = f"slot-{self.trial_id}-{time.time_ns()}"
        self._remove_stale_placement_group()
        # Before Ray Train, which would make an output folder that is gone.
        self._record_name()
        # On the same node as this slot, so that the loss of a third node cannot take it away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox: Any = Mailbox.options(
            name=f"{NAME_PREFIX}{self.name}", scheduling_strategy=here
        ).remote()
        self.failure: BaseException | None = None
        placement = slot.placement
        trainer = DataParallelTrainer(
            _run_worker,
            train_loop_config={
                WORKER_CONFIG: WorkerConfig(
                    slot.plan,
                    self.mailbox,
                    self.placement_groups / f"{self.name}.group",
                    slot.mps,
                )
            },
            backend_config=Rendezvous(backend=placement.backend),
            scaling_config=ScalingConfig(
                num_workers=slot.workers,
                use_gpu=placement.resources_per_worker.get("GPU", 0) > 0,
                resources_per_worker=placement.resources_per_worker,
                placement_strategy=placement.strategy,
            ),
            run_config=RunConfig(
                name=self.name,
                storage_path=slot.storage.path,
                storage_filesystem=slot.storage.filesystem,
                failure_config=FailureConfig(max_failures=WORKER_DEATHS_PER_SLOT),
            ),
        )
        self.thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self.thread.start()
        self._begin(TrialConfig.of(config))

    def step(self) -> dict[str, Any]:
        redirected: TrialConfig | None = ray.get(self.mailbox.take_redirected.remote())
        if redirected:
            self._replace(redirected)
        pending = self.mailbox.next_report.remote(self.current)
        while not ray.wait([pending], timeout=1.0)[0]:
            if not self.thread.is_alive():
                raise RuntimeError(f"The slot's workers ended: {self.failure}")
        report: TrialReport | StartFailure | SlotFailure | None = ray.get(pending)
        if report is None:
            return {"status": "interrupted", "done": False}
        if isinstance(report, StartFailure):
            return {"status": "starting", "done": False, START_FAILURE: report}
        if isinstance(report, SlotFailure):
            raise RuntimeError(report.reason)
        result: dict[str, Any] = {
            "status": report.status,
            "done": report.is_last,
            REPORT: report,
        }
        if report.evaluation:
            result["images"] = report.evaluation.images
        return result

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._replace(TrialConfig.of(new_config))
        return True

    def cleanup(self) -> None:
        ray.get(self.mailbox.cancel.remote(self.current))
        is_stopped = ray.get(self.mailbox.close.remote())
        self.thread.join(STOP_TIMEOUT_S if is_stopped else CLOSE_TIMEOUT_S)

    def _remove_stale_placement_group(self) -> None:
        """Frees what a killed slot had reserved, when its trial starts again in this one.

        A worker group's placement group outlives the process that created it, and this slot would
        wait forever for its resources. After a slot that ended normally there is none left, and to
        remove it again does no harm.
        """
        with contextlib.suppress(OSError, ValueError):
            holder = (self.placement_groups / f"{self.trial_id}.slot").read_text()
            _remove_placement_group(self.placement_groups / f"{holder}.group")

    def _replace(self, trial: TrialConfig) -> None:
        ray.get(self.mailbox.cancel.remote(self.current))
        self._record_name()
        self._begin(trial)

    def _record_name(self) -> None:
        """Writes which slot has the trial, for one that must free what this one had reserved."""
        file = self.placement_groups / f"{self.trial_id}.slot"
        file.write_text(self.name, make_folder=False)

    def _begin(self, trial: TrialConfig) -> None:
        common = self.slot_config.trial_template
        assert trial.budget
        # A trial that continues with another plan has another name in the mailbox: what is still
        # under way of the plan before must not count for this one.
        origin = trial.course.origin if trial.course else None
        self.current = f"{self.trial_id}-{origin.images}" if origin else self.trial_id
        plan = replace(
            common,
            id=self.current,
            architecture=trial.architecture,
            parameters=trial.parameters,
            folder=common.folder / self.trial_id,
            images=trial.budget.images,
            evaluate_every=trial.budget.evaluate_every,
            seed=common.seed if trial.seed is None else trial.seed,
            course=trial.course,
        )
        ray.get(self.mailbox.submit.remote(self.trial_id, plan))

    def _fit(self, trainer: DataParallelTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:
            self.failure = error


def release_workers() -> None:
    """Frees what the worker groups of slots that have ended still reserve, or wait for: those of
    slots that did not wait for their workers. For the process that searches to call, while no slot
    runs."""
    # Of this search alone: the id of a placement group ends with that of its job.
    job = ray.get_runtime_context().get_job_id()
    for id, group in ray.util.placement_group_table().items():
        if id.endswith(job) and group["state"] != "REMOVED":
            ray.util.remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(id)))


def _remove_placement_group(file: Location) -> None:
    id = ray.PlacementGroupID.from_hex(file.read_text())
    ray.util.remove_placement_group(PlacementGroup(id))


def _run_worker(train_loop_config: dict[str, WorkerConfig]) -> None:
    """Ray Train's training function. Also its controller imports this module."""
    from thermal_search.tuning.slots.worker_loop import worker_loop

    worker_loop(train_loop_config[WORKER_CONFIG])
