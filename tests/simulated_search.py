"""A search whose slots do not train: everything else is real, so that it can be killed often.

    python simulated_search.py OUTPUT TRIALS IMAGES EVALUATE_EVERY [KILL_AT]

The process kills itself just before its KILL_AT-th step that writes to the output. It prints the
number of such steps. With FULL_AFTER=N in its environment, its disk is full after N files; with
SLOW_S=S, each evaluation takes that long; with HOURS=H, the search has --hours; with
CANNOT_START=REASON, its slots start no workers.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import ray
from mlflow.tracking import MlflowClient
from ray import tune

from thermal_search import local_ray
from thermal_search.errors import SearchError, SearchInterrupted
from thermal_search.storage import Location, describe_fault
from thermal_search.tracking.store import store_of
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning import nodes
from thermal_search.tuning.beginning import holds_search, require_new, write_plan
from thermal_search.tuning.hours import SearchTime
from thermal_search.tuning.ownership import own, require_free
from thermal_search.tuning.pace import Pace
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.search import SLOT_RESOURCES, run_phase, silence_libraries
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.messages import (
    REPORT,
    START_FAILURE,
    StartFailure,
    TrialConfig,
    TrialReport,
)
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.time_left import TrialTimes
from thermal_search.tuning.trial_source import stop_other_retrainings

STATE = "simulated-state"
"""The file in a trial's folder that a slot writes for what a trial saves at an evaluation."""

STEPS = {"open", "os.rename", "os.remove", "os.mkdir"}


class SimulatedSlot(tune.Trainable):
    """Reports a learning curve that follows from the trial's configuration and seed. As a real
    slot, it first reports again what its trial has evaluated before an interruption."""

    def setup(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, config: dict[str, Any], *, plan: SearchPlan, slow_s: float, cannot_start: str
    ) -> None:
        self.plan, self.slow_s, self.cannot_start = plan, slow_s, cannot_start
        self.starts = 0
        self.begin(config)

    def begin(self, config: dict[str, Any]) -> None:
        self.trial = TrialConfig.of(config)
        digest = hashlib.sha256(repr(sorted(config.items(), key=str)).encode()).digest()
        self.quality, self.images = digest[0] / 255, 0
        phase = "trials" if self.trial.seed is None else "retrainings"
        self.state = self.plan.output / phase / self.trial_id / STATE
        self.trained = int(self.state.read_text()) if self.state.exists() else 0

    def step(self) -> dict[str, Any]:
        plan = self.plan
        if reason := self.cannot_start:
            self.starts += 1
            if self.starts > 1:
                raise RuntimeError(reason)
            return {"status": "starting", "done": False, START_FAILURE: StartFailure(reason)}
        time.sleep(self.slow_s)
        self.images = min(self.images + plan.evaluate_every, plan.images)
        fid = 100 * self.quality + 1000 / self.images
        if self.images > self.trained:
            try:
                self.state.write_text(str(self.images), make_folder=False)
            except OSError as error:  # as the loop of a slot's workers
                fault = describe_fault(error)
                report = TrialReport(status="interrupted", reason=fault, stops_search=True)
                return {"status": report.status, "done": True, REPORT: report}
        is_last = self.images >= plan.images
        report = TrialReport(
            status="completed" if is_last else "running",
            evaluation=TrialEvaluation(
                images=self.images,
                metrics={"fid": fid},
                losses={"generator/gan": self.quality},
                seconds=self.images / 10,
                images_per_second=10.0,
                grid=None,
            ),
            baselines={"inverted_grey": {"fid": 60.0}},
            test_metrics={"fid": fid + 1} if is_last and self.trial.seed is not None else {},
        )
        return {
            "status": report.status,
            "done": is_last,
            "images": self.images,
            REPORT: report,
        }

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.begin(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        pass


def plan_of(output: Path, trials: int, images: int, every: int) -> SearchPlan:
    settings = SearchSettings(
        data="data",
        output=output,
        architectures=("gan", "pix2pix", "wgan"),
        trials=trials,
        images=images,
        evaluate_every=every,
        finalists=2,
        seeds=1,
        reduction=2.0,
    )  # pyright: ignore[reportArgumentType]
    return plan_from_settings(settings)


def search(output: Path, trials: int, images: int, every: int, *, slots: int = 1) -> SearchRecord:
    """Begins the search in `output`, or resumes it. SearchError if neither can be done."""
    hours = float(os.environ.get("HOURS", 0)) or None
    place = Location.of(output).absolute()
    require_free(place)
    resume = holds_search(place)
    if resume:
        plan = SearchPlan.load(place).replace(trials=trials, hours=hours)
    else:
        require_new(place)
        plan = replace_id(plan_of(output, trials, images, every)).replace(hours=hours)
    silence_libraries()
    stopper = SearchStopper("--resume", can_resume=resume)
    with (
        stopper.on_signals(),
        stopper.on_storage_faults(),
        own(plan.output, stopper.report_fault),
    ):
        try:
            write_plan(plan, resume=resume)
        finally:
            stopper.can_resume = holds_search(plan.output)
        record = SearchRecord.of(plan)
        slot = tune.with_parameters(
            SimulatedSlot,
            plan=plan,
            slow_s=float(os.environ.get("SLOW_S", 0)),
            cannot_start=os.environ.get("CANNOT_START", ""),
        )
        trainable = tune.with_resources(slot, SLOT_RESOURCES)
        # The first contact makes MLflow's database, whose seconds are no part of the hours.
        MlflowClient(store_of(plan.output)).search_experiments()
        times = TrialTimes(record)
        clock = SearchTime(record, slots, times) if hours else None
        pace = Pace(record, None, times, clock)
        for phase in ("trials", "retrainings"):
            if clock:
                clock.begin(phase)
            run_phase(phase, record, trainable, slots, stopper, pace=pace)
            stop_other_retrainings(record)
        return record
    stopper.raise_reason()
    raise AssertionError("a search that does not return was stopped for a reason")


def replace_id(plan: SearchPlan) -> SearchPlan:
    return plan.started_on("digest", {"images": 9}).replace(id="simulated")


def kill_at(output: Path, step: int) -> list[int]:
    """Kills this process just before its `step`-th write; returns where the steps are counted."""
    counted = [0]

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in STEPS or str(output) not in str(arguments[0]):
            return
        if event == "open" and not set(str(arguments[1])) & set("wxa"):
            return
        counted[0] += 1
        if counted[0] == step:
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)

    sys.addaudithook(count)
    return counted


def fill_disk_after(files: int) -> None:
    """Makes every further file fail as on a full disk."""
    open_output, count = Location.open_output, itertools.count(1)

    @contextlib.contextmanager
    def open_limited(location: Location, **settings: bool) -> Generator[Any]:
        if next(count) > files:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(location))
        with open_output(location, **settings) as file:
            yield file

    Location.open_output = open_limited  # pyright: ignore[reportAttributeAccessIssue]


def main() -> None:
    output, numbers = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]]
    os.environ.update(nodes.ENVIRONMENT)
    local_ray.start(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    counted = kill_at(output, numbers[3] if len(numbers) > 3 else 0)
    if files := os.environ.get("FULL_AFTER"):
        fill_disk_after(int(files))
    try:
        search(output, *numbers[:3])
    except SearchInterrupted as error:
        print(error, flush=True)
        os._exit(error.exit_code)
    except SearchError as error:
        sys.exit(str(error))
    print(f"steps {counted[0]}", flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
