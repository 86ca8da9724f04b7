"""A trial slot: one long-lived Ray Train worker group through which Ray Tune's trials flow.

A worker group takes most of a minute to start, since each of its processes imports torch. Starting
one a trial wastes that minute every time, and a trial stopped early leaves its resources reserved.
A slot starts its group once; the next trial begins a fraction of a second after the last.
"""

import contextlib
import math
import threading
import time
from typing import Any

import ray
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from thermal_search.distributed.rendezvous import Rendezvous
from thermal_search.storage import Location
from thermal_search.tuning.objective import Objective
from thermal_search.tuning.placement import SlotPlacement
from thermal_search.tuning.slots.mailbox import Job, Mailbox, Result
from thermal_search.tuning.slots.worker_loop import SlotPlan, worker_loop
from thermal_search.tuning.space import OBJECTIVE, SECOND_OBJECTIVE, setting_of

DIVERGED_OBJECTIVE = 1e6
"""What a trial without a usable result is worth: large, and finite, because Optuna leaves a trial
that ends on NaN running for ever."""

WORKER_DEATHS_PER_SLOT = 100
"""How often a slot's group may be restarted in all. Not without end: the mailbox fails a trial that
keeps losing its workers, this is for faults that strike before a worker reaches the mailbox."""

CLOSING_TIME_S = 60.0


class Slot(tune.Trainable):
    """Ray Tune's end of a slot. One `step` is one evaluation of the current trial."""

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride] - tune.with_parameters adds them
        self,
        config: dict[str, Any],
        *,
        plan: SlotPlan,
        workers: int,
        layout: SlotPlacement,
        storage: Location,
        trial_settings: Job,
        aim: Objective,
        average_last: int,
    ) -> None:
        self.trial_settings = trial_settings
        self.aim, self.average_last = aim, average_last
        self.placement_groups = storage / "placement_groups"
        # A new name each time: Ray Train would resume a slot of the same name.
        self.name = f"slot-{self.trial_id}-{time.time_ns()}"
        self._reclaim()
        # Beside this slot, so that no third machine can take it away.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.mailbox: Any = Mailbox.options(scheduling_strategy=here).remote()
        self.failure: BaseException | None = None
        trainer = TorchTrainer(
            worker_loop,
            train_loop_config={
                "plan": plan,
                "mailbox": self.mailbox,
                "lease": self.placement_groups / f"{self.name}.group",
            },
            torch_config=Rendezvous(backend=layout.backend),
            scaling_config=ScalingConfig(
                num_workers=workers,
                use_gpu=layout.resources_per_worker.get("GPU", 0) > 0,
                resources_per_worker=layout.resources_per_worker,
                placement_strategy=layout.strategy,
            ),
            run_config=RunConfig(
                name=self.name,
                storage_path=storage.path,
                storage_filesystem=storage.filesystem,
                failure_config=FailureConfig(max_failures=WORKER_DEATHS_PER_SLOT),
            ),
        )
        self.thread = threading.Thread(target=self._fit, args=(trainer,), daemon=True)
        self.thread.start()
        self._begin(config)

    def step(self) -> dict[str, Any]:
        pending = self.mailbox.next_result.remote(self.current)
        while not ray.wait([pending], timeout=1.0)[0]:
            if not self.thread.is_alive():
                raise RuntimeError(f"The slot's workers ended: {self.failure}")
        result: Result = ray.get(pending)
        if result["status"] == "slot failed":
            raise RuntimeError(result["reason"])
        result["done"] = result["status"] != "running"
        return result | self._worth(result)

    def _worth(self, result: Result) -> dict[str, float]:
        """What the trial is worth now, on one axis or two."""
        keys = [OBJECTIVE, SECOND_OBJECTIVE][: len(self.aim.axes)]
        if result["status"] in ("diverged", "failed"):
            return dict.fromkeys(keys, DIVERGED_OBJECTIVE)
        self.evaluations.append({**result, **result["beside"]})
        worth = self.aim.worth(self.evaluations, self.average_last)
        return {
            key: value if math.isfinite(value) else DIVERGED_OBJECTIVE
            for key, value in zip(keys, worth, strict=True)
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        ray.get(self.mailbox.cancel.remote(self.current))
        self._begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # the trial's own folder holds its state, written before its result was told

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        pass

    def cleanup(self) -> None:
        ray.get(self.mailbox.cancel.remote(self.current))
        ray.get(self.mailbox.close.remote())
        self.thread.join(CLOSING_TIME_S)

    def _reclaim(self) -> None:
        """Gives back what a killed slot held, when its trial starts again in this one.

        The worker group's reservation outlives the process that made it, and this slot would wait
        for it for ever. A slot that ended in order has none left, and removing it again is no harm.
        """
        with contextlib.suppress(OSError, ValueError):
            holder = (self.placement_groups / f"{self.trial_id}.slot").read_text()
            group = ray.PlacementGroupID.from_hex(
                (self.placement_groups / f"{holder}.group").read_text()
            )
            ray.util.remove_placement_group(PlacementGroup(group))

    def _begin(self, config: dict[str, Any]) -> None:
        self.current = self.trial_id
        (self.placement_groups / f"{self.current}.slot").write_text(self.name)
        self.evaluations: list[dict[str, Any]] = []
        setting = setting_of(config)
        architecture = setting["architecture"]
        job: Job = {
            "id": self.current,
            "architecture": architecture,
            "parameters": setting.get(architecture, {}),
            **self.trial_settings,
            "folder": self.trial_settings["folder"] / self.current,
        }
        if "seed" in setting:
            job["seed"] = setting["seed"]
        ray.get(self.mailbox.submit.remote(job))

    def _fit(self, trainer: TorchTrainer) -> None:
        try:
            trainer.fit()
        except Exception as error:
            self.failure = error
