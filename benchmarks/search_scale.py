"""What the driver of a large search costs: its slots report learning curves instead of training.

    python benchmarks/search_scale.py --trials 10000 --slots 500

The record, the sampler, the scheduler, MLflow's database, the study for others and the progress
lines are real; the slots' processes and Ray Tune's own loop, which starts them, are not there: time
is virtual, and the driver handles one event after another as Ray Tune would call it.
"""

import argparse
import hashlib
import logging
import os
import resource
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

from virtual_driver import VirtualSearch, tune_result, tune_trial

from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.callback import SearchCallback
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.proposals import Proposals
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers.asha import ASHA
from thermal_search.tuning.search import silence_libraries
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.shared_study import open_storage
from thermal_search.tuning.slots.messages import TrialReport
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.trial_source import proposed_trials

IMAGES, EVERY = 200_000, 20_000
LOSSES = ("generator/gan", "generator/l1", "discriminator/gan")


class Timer:
    """Seconds of each kind of work."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, work: str) -> Generator[None]:
        began = time.perf_counter()
        yield
        self.seconds[work].append(time.perf_counter() - began)

    def rows(self) -> Generator[str]:
        for work, seconds in self.seconds.items():
            last = sorted(seconds[-max(len(seconds) // 10, 1) :])
            yield (
                f"{work:9} {len(seconds):8,} times  median of the last tenth "
                f"{median(last) * 1e3:9.2f} ms, longest {last[-1] * 1e3:9.1f} ms, "
                f"in all {sum(seconds):8.1f} s"
            )


class SimulatedSearch(VirtualSearch):
    """One search in virtual time."""

    def __init__(self, plan: SearchPlan, slots: int, timer: Timer) -> None:
        super().__init__(slots)
        self.timer = timer
        self.stopper = SearchStopper("the same command")
        self.record = SearchRecord.of(plan)
        with timer("resume"):
            self.callback = SearchCallback(
                self.record, "trials", self.stopper, open_storage(plan.output, None)
            )
            self.callback.setup()
            self.scheduler = ASHA(self.record)
            self.trials = proposed_trials(self.record)
        self.ended = 0

    def run(self) -> None:
        super().run()
        self.callback.finish()

    def start(self) -> Any:
        with self.timer("proposal"):
            record = next(self.trials, None)
        if record is None:
            return None
        digest = hashlib.sha256(repr(record.parameters).encode()).digest()
        trial = tune_trial(record, quality=digest[0] / 255, speed=1 + digest[1] / 64, images=0)
        with self.timer("start"):
            self.scheduler.on_trial_add(None, trial)
            self.callback.on_trial_start(0, [], trial)
        return trial

    def seconds_to_report(self, trial: Any) -> float:
        return trial.speed

    def report(self, trial: Any) -> bool:
        trial.images += EVERY
        is_last = trial.images >= IMAGES
        distance = 100 * trial.quality + 4e6 / trial.images
        names = ("fid", "fid_infinity", "kid", "kid_standard_error", "l1", "psnr", "ssim")
        report = TrialReport(
            status="completed" if is_last else "running",
            evaluation=TrialEvaluation(
                images=trial.images,
                metrics={name: distance / (1 + i) for i, name in enumerate(names)},
                losses={name: trial.quality for name in LOSSES},
                seconds=trial.images / 10,
                images_per_second=10.0,
                grid=None,
            ),
            baselines={"inverted_grey": {"fid": 60.0}},
        )
        trial.last_result = result = tune_result(report, trial.images)
        with self.timer("report"):
            decision = self.scheduler.on_trial_result(None, trial, result)
            self.callback.on_trial_result(0, [], trial, result)
            self.callback.on_step_end(0, [])
        if not (is_last or decision == self.scheduler.STOP):
            return False
        with self.timer("end"):
            self.scheduler.on_trial_complete(None, trial, result)
            self.callback.on_trial_complete(0, [], trial)
        self.ended += 1
        if self.ended % 500 == 0:
            print(f"{self.ended:,} trials", *self.timer.rows(), sep="\n  ", file=sys.stderr)
        return True


def resume(plan: SearchPlan, timer: Timer) -> None:
    """What a --resume does before its first trial starts."""
    with timer("resumed"):
        search = SimulatedSearch(plan.replace(trials=plan.trials + 1), 1, timer)
        Proposals(search.record, plan.architectures).propose()
    search.callback.finish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--slots", type=int, default=500)
    parser.add_argument("--output", type=Path, help="kept; default: a temporary folder")
    arguments = parser.parse_args()
    output = arguments.output or Path(mkdtemp())
    silence_libraries()
    logging.getLogger("alembic").setLevel(logging.ERROR)
    settings = SearchSettings(
        data=Path("data"), output=output / "search", trials=arguments.trials, images=IMAGES,
        evaluate_every=EVERY, finalists=0,
    )  # fmt: skip  # pyright: ignore[reportArgumentType]
    plan = plan_from_settings(settings).started_on("digest", {"images": 500})
    plan.output.make_folder()
    plan.save()
    timer, began = Timer(), time.perf_counter()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the progress lines
        SimulatedSearch(plan, arguments.slots, timer).run()
    seconds = time.perf_counter() - began
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = [path for path in (output / "search").rglob("*") if path.is_file()]
    by_name: dict[str, int] = defaultdict(int)
    for path in files:
        by_name[path.name] += path.stat().st_size
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        resume(plan, timer)
    print(f"{arguments.trials:,} trials, {arguments.slots} slots: {seconds:.0f} s of the driver")
    print(*timer.rows(), sep="\n")
    print(f"memory of the driver: {megabytes:.0f} MB at most; {len(files):,} files")
    for name, size in sorted(by_name.items(), key=lambda item: -item[1])[:8]:
        print(f"  {name:24} {size / 1e6:10.1f} MB")
    if not arguments.output:
        shutil.rmtree(output)


if __name__ == "__main__":
    sys.exit(main())
