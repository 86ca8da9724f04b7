"""Seconds from the start of a search to the first training step of its first trial, and from the
end of a trial to the first step of the next: slots against Ray's documented pattern, one
TorchTrainer for each trial.

    python benchmarks/trial_turnaround.py DATASET [--trials 4] [--only-slots]

DATASET is a folder written by process.py. Ours is a real search with one slot, timed by its files:
a trial ends when its last generator is saved; its first step starts at the time of its first image
grid, less the seconds that its first evaluation reports. The start holds Ray's own, that of the
slot's workers, and what they measure of the dataset before they train. The other pattern runs
afterwards on the same machine, with a loop that only logs when it starts and ends.
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import ray
from ray import tune
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from thermal_search import checkpoint
from thermal_search.storage import Location
from thermal_search.training.trial_plan import grid_name
from thermal_search.tuning import nodes
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.search import search
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings


def main() -> None:
    args = parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        record = slots(args.dataset, Path(folder, "search"), args.trials)
        first = min(first_steps(record)) - began
        print(f"from the start of the search to its first training step: {first:.1f} s")
        ours = gaps_between_trials(record, slots=1)
        show("one slot", ours)
        if args.only_slots:
            return
        theirs = trainers(Path(folder), args.trials)
    show("one TorchTrainer per trial", theirs)
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(f"{ratio:.0f} times as fast to the next trial")


def show(name: str, gaps: list[float]) -> None:
    listed = ", ".join(f"{gap:.2f}" for gap in gaps)
    print(f"{name}: median {statistics.median(gaps):.2f} s ({listed})", flush=True)


def slots(dataset: Path, output: Path, trials: int) -> SearchRecord:
    """A search with one slot."""
    settings = SearchSettings(
        data=Location.of(dataset),
        output=Location.of(output),
        architectures=("pix2pix",),
        trials=trials,
        images=64,
        evaluate_every=32,
        slots=1,
        features="efficientnet-lite0",
    )
    return search(plan_from_settings(settings))


def gaps_between_trials(record: SearchRecord, slots: int) -> list[float]:
    """Seconds from the end of each trial of a search to the first step of the one that follows it
    in a slot, if trials of its slots end in the order in which they begin."""
    ends: list[float] = []
    for trial in record.trials.values():
        generator = (record.folder(trial) / checkpoint.GENERATOR).local
        assert generator
        ends.append(generator.stat().st_mtime)
    following = sorted(first_steps(record))[slots:]
    return [begin - end for begin, end in zip(following, sorted(ends), strict=False)]


def first_steps(record: SearchRecord) -> list[float]:
    """When the trials of a search began to train, by `time.time`."""
    begins: list[float] = []
    for trial in record.trials.values():
        first = trial.history[0]
        drawn = (record.folder(trial) / grid_name(first.images)).local
        assert drawn
        begins.append(drawn.stat().st_mtime - first.seconds)
    return begins


def loop(config: dict[str, str]) -> None:
    begun = time.time()
    time.sleep(1)
    with open(config["log"], "a") as log:
        print(json.dumps([begun, time.time()]), file=log)


def one_trial(config: dict[str, str]) -> None:
    trainer = TorchTrainer(
        loop,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.8}),
        run_config=RunConfig(
            name=f"trial-{time.time_ns()}", storage_path=str(Path(config["log"]).parent)
        ),
    )
    trainer.fit()
    tune.report({"done": True})


def trainers(folder: Path, trials: int) -> list[float]:
    log = folder / "times.jsonl"
    nodes.join("local")
    tune.Tuner(
        tune.with_resources(one_trial, {"CPU": 0.01}),
        param_space={"log": str(log)},
        tune_config=tune.TuneConfig(num_samples=trials, max_concurrent_trials=1),
        run_config=tune.RunConfig(name="trainers", storage_path=str(folder), verbose=0),
    ).fit()
    ray.shutdown()
    times = sorted(json.loads(line) for line in log.read_text().splitlines())
    return [begin - end for (_, end), (begin, _) in pairwise(times)]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--only-slots", action="store_true", help="leave out the other pattern")
    return parser.parse_args()


if __name__ == "__main__":
    main()
