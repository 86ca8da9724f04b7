"""What each search policy buys: simulated searches among recorded settings.

    python benchmarks/search_policies.py [--curves benchmarks/learning_curves.jsonl.gz]

The samplers and the schedulers are the product's, driven in virtual time. A sampler proposes a
setting of the small spaces; the search then has the nearest recorded setting of that architecture
that it has not had yet (`recorded_curves.NearestCurves`), and its learning curve. So every search
draws without replacement from the same settings, whose values at full length are known, and the
sampler is told what was trained, not what it asked for. An architecture without a setting left is
no longer proposed.

A search may spend as much compute as random search at full length needs for --trials trials. Its
result after some compute is the best value at full length of the trials that have completed. The
compute is CPU-seconds of training: evaluations, which take no more time than training here only
because the networks are small, are not counted.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import matplotlib.pyplot as plt
from recorded_curves import Curve, Head, NearestCurves, read_curves
from virtual_search import VirtualSearch, tune_result, tune_trial

from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.plan import SearchPlan, plan_from_settings
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers import build_scheduler
from thermal_search.tuning.search import silence_libraries
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.slots.messages import TrialConfig, TrialReport
from thermal_search.tuning.study import ProposalStudy
from thermal_search.tuning.summary import TrialRecord

FOLDER = Path(__file__).parent
BASELINE = "random"

POLICIES: dict[str, dict[str, Any]] = {
    BASELINE: {"sampler": "random", "scheduler": "none"},
    "random, no published points": {
        "sampler": "random", "scheduler": "none", "no_published": True,
    },
    "random, asha": {"sampler": "random", "scheduler": "asha"},
    "tpe": {"sampler": "tpe", "scheduler": "none"},
    "tpe, asha (default)": {"sampler": "tpe", "scheduler": "asha"},
    "tpe, hyperband": {"sampler": "tpe", "scheduler": "hyperband"},
    "tpe, median": {"sampler": "tpe", "scheduler": "median"},
}  # fmt: skip
"""Settings of the search, by the name of the policy."""


class MemoryRecord(SearchRecord):
    """A record without files."""

    def _save(self, trial: TrialRecord) -> None:
        pass


@dataclass
class Outcome:
    """What a search has found after how much compute."""

    spent: list[float] = field(default_factory=list)
    """CPU-seconds until each completed trial that is better than those before it."""

    best: list[float] = field(default_factory=list)
    trials: int = 0
    completed: int = 0

    def add(self, spent: float, value: float) -> None:
        self.completed += 1
        if not self.best or value < self.best[-1]:
            self.spent.append(spent)
            self.best.append(value)

    def at(self, spent: float) -> float:
        """The best value after so many CPU-seconds; infinite before the first one."""
        values = [v for s, v in zip(self.spent, self.best, strict=True) if s <= spent]
        return values[-1] if values else math.inf

    def reaches(self, value: float) -> float:
        """CPU-seconds until a value at least as good; infinite if it never comes."""
        reached = (s for s, v in zip(self.spent, self.best, strict=True) if v <= value)
        return next(reached, math.inf)


class PolicySearch(VirtualSearch):
    """One search among the recorded settings."""

    def __init__(self, plan: SearchPlan, table: NearestCurves, slots: int, compute: float) -> None:
        """`compute`: CPU-seconds after which no trial starts."""
        super().__init__(slots)
        self.plan, self.table, self.compute = plan, table, compute
        self.record = MemoryRecord(plan)
        self.scheduler = build_scheduler(self.record)
        self.spent, self.outcome = 0.0, Outcome()

    def start(self) -> Any:
        architectures = self.table.architectures
        if self.spent >= self.compute or not architectures:
            return None
        # A study that is rebuilt from the record, as when a search resumes, knows the settings
        # that were trained instead of those that were proposed.
        study = ProposalStudy(self.record, architectures, self.plan.seed)
        number, config = study.propose()
        curve = self.table.take(config.architecture, config.parameters)
        record = self.record.add(number, TrialConfig(curve.architecture, curve.parameters))
        trial = tune_trial(record, curve=curve, count=0)
        self.scheduler.on_trial_add(None, trial)  # pyright: ignore[reportArgumentType]
        self.outcome.trials += 1
        return trial

    def seconds_to_report(self, trial: Any) -> float:
        return seconds_until(trial.curve, trial.count) - seconds_until(trial.curve, trial.count - 1)

    def report(self, trial: Any) -> bool:
        self.spent += self.seconds_to_report(trial)
        curve: Curve = trial.curve
        trial.count += 1
        if trial.count > len(curve.evaluations):
            self.record.end(trial.trial_id, "diverged", curve.reason)
            report = TrialReport(status="diverged", reason=curve.reason)
            self.scheduler.on_trial_complete(None, trial, tune_result(report, 0))
            return True
        is_last = curve.status == "completed" and trial.count == len(curve.evaluations)
        evaluation = curve.evaluations[trial.count - 1]
        report = TrialReport(
            status="completed" if is_last else "running",
            evaluation=TrialEvaluation(
                images=trial.count,
                metrics={self.plan.metric: evaluation.distance, "l1": evaluation.l1},
                losses={},
                seconds=evaluation.seconds,
                images_per_second=1.0,
                grid=None,
            ),
        )
        result = tune_result(report, trial.count)
        decision = self.scheduler.on_trial_result(None, trial, result)  # pyright: ignore[reportArgumentType]
        self.record.add_evaluation(trial.trial_id, report)
        if not (is_last or decision == self.scheduler.STOP):
            return False
        self.record.end(trial.trial_id, "completed" if is_last else "stopped", "")
        self.scheduler.on_trial_complete(None, trial, result)  # pyright: ignore[reportArgumentType]
        if is_last:
            self.outcome.add(
                self.spent, self.record.objective_values(self.record[trial.trial_id])[0]
            )
        return True


def seconds_until(curve: Curve, count: int) -> float:
    """CPU-seconds of a run until its evaluation of index `count`, or its end."""
    if count < 0:
        return 0.0
    return curve.evaluations[count].seconds if count < len(curve.evaluations) else curve.seconds


def plan_of(head: Head, policy: dict[str, Any], seed: int, trials: int) -> SearchPlan:
    """The plan of a search; its images are evaluations, which come at equal shares of a budget."""
    settings = SearchSettings(
        data=Path("data"), output=Path("output"), features="efficientnet-lite0",
        architectures=tuple(head.spaces), images=head.evaluations, evaluate_every=1,
        trials=trials, finalists=0, seed=seed, **policy,
    )  # fmt: skip  # pyright: ignore[reportArgumentType]
    plan = plan_from_settings(settings).replace(own_spaces=head.spaces)
    return plan.started_on("drawn scenes", head.protocol)


def simulate(
    head: Head, curves: Sequence[Curve], policy: dict[str, Any], seed: int, slots: int,
    compute: float,
) -> Outcome:  # fmt: skip
    spaces = {name: space.load() for name, space in head.spaces.items()}
    plan = plan_of(head, policy, seed, len(curves))
    search = PolicySearch(plan, NearestCurves(spaces, curves), slots, compute)
    search.run()
    return search.outcome


def true_value(curve: Curve, last: int) -> float:
    """A setting's objective at full length; infinite if it did not complete."""
    if curve.status != "completed":
        return math.inf
    return mean(evaluation.distance for evaluation in curve.evaluations[-last:])


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper one."""
    finite = [min(value, 1e9) for value in values]
    low, middle, high = quantiles(finite, n=4, method="inclusive")
    return low, middle, high


def table(outcomes: dict[str, list[Outcome]], compute: float, run: float) -> Iterator[str]:
    """A row for each policy; `run`: CPU-seconds of a mean full run."""
    target = median(outcome.at(compute) for outcome in outcomes[BASELINE])
    yield (
        "| Policy | At a third of the compute | At a half | At all of it "
        f"| Reaches {target:.1f} after | Trials, completed |"
    )
    yield "|---|---|---|---|---|---|"
    for name, searches in outcomes.items():
        cells = [name]
        for share in (1 / 3, 1 / 2, 1):
            low, middle, high = quartiles([search.at(share * compute) for search in searches])
            cells.append(f"{middle:.1f} ({low:.1f} to {high:.1f})")
        reached = [search.reaches(target) / compute for search in searches]
        share = sum(value <= 1 for value in reached) / len(reached)
        middle = quartiles(reached)[1]
        text = f"{middle:.2f} of the compute" if middle <= 1 else "more than all"
        cells.append(f"{text}; {share:.0%} reach it")
        trials = mean(search.trials for search in searches)
        cells.append(f"{trials:.0f}, {mean(search.completed for search in searches):.0f}")
        yield "| " + " | ".join(cells) + " |"


def draw(
    outcomes: dict[str, list[Outcome]], compute: float, run: float, best: float, file: Path
) -> None:
    """The medians over the orders against the compute, and the quartiles as bands."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    grid = [compute * step / 300 for step in range(1, 301)]
    for name, searches in outcomes.items():
        rows = [quartiles([search.at(spent) for search in searches]) for spent in grid]
        x, shown = (
            [s / run for s in grid],
            [row if row[1] < 1e8 else (math.nan,) * 3 for row in rows],
        )
        low, middle, high = zip(*shown, strict=True)
        (line,) = axes.plot(x, middle, label=name, linewidth=1.6)
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.08, linewidth=0)
    axes.axhline(best, color="gray", linestyle=":", label="best recorded setting")
    axes.set_xlabel("compute, in mean full runs")
    axes.set_ylabel("distance at full length of the best completed trial")
    axes.set_ylim(top=median(search.at(compute / 8) for search in outcomes[BASELINE]))
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def main() -> None:
    args = parse_args()
    silence_libraries()
    head, runs = read_curves(args.curves)
    curves = [curve for curve in runs if curve.seed == 0]
    last = plan_of(head, POLICIES[BASELINE], 0, 1).average_last
    run = mean(curve.seconds for curve in curves)
    compute = args.trials * run
    values = sorted(true_value(curve, last) for curve in curves)
    print(f"{len(curves)} settings, {len(runs)} runs, a mean run takes {run:.1f} CPU-seconds")
    print("best recorded values: " + ", ".join(f"{value:.1f}" for value in values[:10]))
    results = Results(args, head)
    outcomes: dict[str, list[Outcome]] = {}
    for name in args.policies:
        outcomes[name] = results.get(name) or [
            simulate(head, curves, POLICIES[name], seed, args.slots, compute)
            for seed in range(args.orders)
        ]
        results.keep(name, outcomes[name])
        print(
            f"{name}: {mean(outcome.trials for outcome in outcomes[name]):.0f} trials", flush=True
        )
    print(*table(outcomes, compute, run), sep="\n")
    draw(outcomes, compute, run, values[0], args.plot)


class Results:
    """Outcomes in a file, so that policies that were simulated before are not simulated again."""

    def __init__(self, args: argparse.Namespace, head: Head) -> None:
        key = [args.orders, args.slots, args.trials, args.curves.read_bytes().hex()]
        self.file, self.key = args.results, hashlib.sha256(json.dumps(key).encode()).hexdigest()
        self.content: dict[str, Any] = {}
        if self.file and self.file.exists():
            content = json.loads(self.file.read_text())
            self.content = content if content.get("key") == self.key else {}

    def get(self, name: str) -> list[Outcome] | None:
        return [Outcome(**fields) for fields in self.content.get(name, [])] or None

    def keep(self, name: str, outcomes: list[Outcome]) -> None:
        self.content |= {"key": self.key, name: [vars(outcome) for outcome in outcomes]}
        if self.file:
            self.file.write_text(json.dumps(self.content))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=Path, default=FOLDER / "learning_curves.jsonl.gz")
    parser.add_argument("--orders", type=int, default=50, help="searches of each policy")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--trials", type=int, default=60, help="full runs that the compute is for")
    parser.add_argument("--policies", nargs="+", default=[*POLICIES], choices=[*POLICIES])
    parser.add_argument("--plot", type=Path, default=FOLDER / "search_policies.png")
    parser.add_argument("--results", type=Path, help="outcomes; kept, and not computed again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
