"""What the driver of a large search costs: its slots replay learning curves instead of training.

    python benchmarks/search_scale.py --trials 10000 --slots 500

A trial replays one of the recorded runs of its architecture, which one by a hash of its parameters.
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

from recorded_curves import Curve, read_curves
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

CURVES = Path(__file__).with_name("learning_curves.jsonl.gz")
IMAGES = 200_000
LOSSES = ("generator/gan", "generator/l1", "discriminator/gan")


class Timer:
    """CPU-seconds of each kind of work, of the thread that drives the search."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def __call__(self, work: str) -> Generator[None]:
        began = time.thread_time()
        yield
        self.seconds[work].append(time.thread_time() - began)

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

    def __init__(
        self, plan: SearchPlan, curves: dict[str, list[Curve]], slots: int, timer: Timer
    ) -> None:
        """`curves`: by architecture."""
        super().__init__(slots)
        self.timer, self.curves, self.every = timer, curves, plan.evaluate_every
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
        curves = self.curves[record.architecture]
        trial = tune_trial(record, curve=curves[digest[0] % len(curves)], evaluations=0)
        with self.timer("start"):
            self.scheduler.on_trial_add(None, trial)
            self.callback.on_trial_start(0, [], trial)
        return trial

    def seconds_to_report(self, trial: Any) -> float:
        seconds = [0.0, *(evaluation.seconds for evaluation in trial.curve.evaluations)]
        return seconds[trial.evaluations + 1] - seconds[trial.evaluations]

    def report(self, trial: Any) -> bool:
        found = trial.curve.evaluations[trial.evaluations]
        trial.evaluations += 1
        images = trial.evaluations * self.every
        is_last = trial.evaluations == len(trial.curve.evaluations)
        distances = {"fid": found.distance, "fid_infinity": 0.9 * found.distance}
        report = TrialReport(
            status="completed" if is_last else "running",
            evaluation=TrialEvaluation(
                images=images,
                metrics=distances
                | {"kid": found.kid, "kid_standard_error": 0.1 * found.kid}
                | {"l1": found.l1, "psnr": found.l1, "ssim": found.l1},
                losses={name: found.l1 for name in LOSSES},
                seconds=found.seconds,
                images_per_second=images / found.seconds,
                grid=None,
            ),
            baselines={"inverted_grey": {"fid": 2000.0}},
        )
        trial.last_result = result = tune_result(report, images)
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


def completed_curves() -> tuple[int, dict[str, list[Curve]]]:
    """Evaluations of a run, and all runs that completed, by architecture."""
    head, curves = read_curves(CURVES)
    completed: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        if curve.status == "completed" and len(curve.evaluations) == head.evaluations:
            completed[curve.architecture].append(curve)
    return head.evaluations, completed


def resume(plan: SearchPlan, curves: dict[str, list[Curve]], timer: Timer) -> None:
    """What a --resume does before its first trial starts."""
    with timer("resumed"):
        search = SimulatedSearch(plan.replace(trials=plan.trials + 1), curves, 1, timer)
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
    evaluations, curves = completed_curves()
    settings = SearchSettings(
        data=Path("data"), output=output / "search", trials=arguments.trials, images=IMAGES,
        evaluate_every=IMAGES // evaluations, finalists=0,
    )  # fmt: skip  # pyright: ignore[reportArgumentType]
    plan = plan_from_settings(settings).started_on("digest", {"images": 500})
    plan.output.make_folder()
    plan.save()
    timer, began, busy = Timer(), time.monotonic(), time.process_time()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):  # the progress lines
        SimulatedSearch(plan, curves, arguments.slots, timer).run()
    seconds, busy = time.monotonic() - began, time.process_time() - busy
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    files = [path for path in (output / "search").rglob("*") if path.is_file()]
    by_name: dict[str, int] = defaultdict(int)
    for path in files:
        by_name[path.name] += path.stat().st_size
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        resume(plan, curves, timer)
    print(
        f"{arguments.trials:,} trials, {arguments.slots} slots: {busy:.0f} CPU-seconds of the "
        f"driver, with MLflow's thread, in {seconds:.0f} s"
    )
    print(*timer.rows(), sep="\n")
    print(f"memory of the driver: {megabytes:.0f} MB at most; {len(files):,} files")
    for name, size in sorted(by_name.items(), key=lambda item: -item[1])[:8]:
        print(f"  {name:24} {size / 1e6:10.1f} MB")
    if not arguments.output:
        shutil.rmtree(output)


if __name__ == "__main__":
    sys.exit(main())
