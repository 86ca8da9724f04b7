"""What each search policy buys: simulated searches among recorded settings.

    python benchmarks/search_policies.py CURVES

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
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, variance
from typing import Any

from policy_outcomes import Outcome, Results, draw, table
from ray.tune.schedulers import FIFOScheduler
from recorded_curves import Curve, Head, NearestCurves, read_curves
from rung_rules import RungRule, Scope
from scipy.stats import spearmanr
from virtual_driver import VirtualSearch, tune_result, tune_trial

from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.proposals import Proposals
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers import build_scheduler
from thermal_search.tuning.search import silence_libraries
from thermal_search.tuning.settings import SearchSettings
from thermal_search.tuning.settings_to_plan import plan_from_settings
from thermal_search.tuning.slots.messages import TrialConfig, TrialReport
from thermal_search.tuning.summary import TrialRecord

FOLDER = Path(__file__).parent
BASELINE, DEFAULT = "random", "tpe, asha (default)"


@dataclass(frozen=True)
class Policy:
    """Settings of the search, and its scheduler if that is not the product's."""

    sampler: str = "tpe"
    scheduler: str = "none"
    no_published: bool = False
    rule: Callable[[SearchRecord], FIFOScheduler] = build_scheduler


def rule(*rungs: tuple[int, Scope], **settings: Any) -> Callable[[SearchRecord], FIFOScheduler]:
    return partial(RungRule, rungs=rungs, **settings)


WITHIN = rule((1, "architecture"), (3, "architecture"), (9, "architecture"))
FROM_FIRST = rule((1, "all"), (3, "all"), (9, "all"), waits_for_growth=True)

POLICIES = {
    BASELINE: Policy(sampler="random"),
    "random, no published points": Policy(sampler="random", no_published=True),
    "random, asha": Policy(sampler="random", scheduler="asha"),
    "tpe": Policy(),
    "tpe, asha within architectures": Policy(rule=WITHIN),
    DEFAULT: Policy(scheduler="asha"),
    "tpe, asha of all from the first rung": Policy(rule=FROM_FIRST),
    "tpe, hyperband": Policy(scheduler="hyperband"),
    "tpe, median": Policy(scheduler="median"),
}


class MemoryRecord(SearchRecord):
    """A record without files."""

    def _save(self, trial: TrialRecord) -> None:
        pass


class PolicySearch(VirtualSearch):
    """One search among the recorded settings."""

    def __init__(
        self, plan: SearchPlan, policy: Policy, table: NearestCurves, slots: int, compute: float
    ) -> None:
        """`compute`: CPU-seconds after which no trial starts."""
        super().__init__(slots)
        self.plan, self.table, self.compute = plan, table, compute
        self.record = MemoryRecord(plan)
        self.scheduler = policy.rule(self.record)
        self.proposals = Proposals(self.record, table.architectures)
        self.spent, self.outcome = 0.0, Outcome()

    def start(self) -> Any:
        architectures = self.table.architectures
        if self.spent >= self.compute or not architectures:
            return None
        if architectures != [*self.proposals.space.spaces]:
            self.proposals = Proposals(self.record, architectures)
        number, config = self.proposals.propose()
        # The sampler is told of what was trained, because that is what the record has.
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


def plan_of(head: Head, policy: Policy, seed: int, trials: int) -> SearchPlan:
    """The plan of a search; its images are evaluations, which come at equal shares of a budget."""
    settings = SearchSettings(
        data=Path("data"), output=Path("output"), features="efficientnet-lite0",
        architectures=tuple(head.spaces), images=head.evaluations, evaluate_every=1,
        trials=trials, finalists=0, seed=seed, sampler=policy.sampler, scheduler=policy.scheduler,
        no_published=policy.no_published,
    )  # fmt: skip  # pyright: ignore[reportArgumentType]
    plan = plan_from_settings(settings).replace(own_spaces=head.spaces)
    return plan.started_on("drawn scenes", head.protocol)


def simulate(
    head: Head, curves: Sequence[Curve], policy: Policy, seed: int, slots: int,
    compute: float,
) -> Outcome:  # fmt: skip
    spaces = {name: space.load() for name, space in head.spaces.items()}
    plan = plan_of(head, policy, seed, len(curves))
    search = PolicySearch(plan, policy, NearestCurves(spaces, curves), slots, compute)
    search.run()
    return search.outcome


def true_value(curve: Curve, last: int) -> float:
    """A setting's objective at full length; infinite if it did not complete."""
    if curve.status != "completed":
        return math.inf
    return mean(evaluation.distance for evaluation in curve.evaluations[-last:])


def agreement(curves: Sequence[Curve], count: int, last: int) -> str:
    """How well the order after `count` evaluations tells that at full length (Spearman)."""
    completed = [curve for curve in curves if curve.status == "completed"]

    def correlation(chosen: Sequence[Curve]) -> float:
        early = [mean(e.distance for e in c.evaluations[:count][-last:]) for c in chosen]
        return spearmanr(early, [true_value(c, last) for c in chosen]).statistic

    by_name = [[c for c in completed if c.architecture == name] for name in architectures(curves)]
    within = mean(correlation(group) for group in by_name if len(group) > 2)
    return (
        f"rank correlation of {count} evaluations with all: {within:.2f} within an architecture, "
        f"{correlation(completed):.2f} over all"
    )


def noise(runs: Sequence[Curve], last: int) -> str:
    """What a seed changes, beside what a setting changes."""
    values = {run.key: true_value(run, last) for run in runs if run.status == "completed"}
    seeds: dict[tuple[str, int], list[float]] = {}
    for (name, number, _), value in values.items():
        seeds.setdefault((name, number), []).append(value)
    repeated = [variance(group) for group in seeds.values() if len(group) > 1]
    between = [
        variance(v for (name, _, seed), v in values.items() if name == chosen and seed == 0)
        for chosen in architectures(runs)
    ]
    return (
        f"standard deviation between seeds of a setting {math.sqrt(mean(repeated)):.0f} "
        f"({len(repeated)} settings), between settings of an architecture "
        f"{math.sqrt(mean(between)):.0f}"
    )


def architectures(curves: Sequence[Curve]) -> list[str]:
    return sorted({curve.architecture for curve in curves})


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
    print(*(agreement(curves, count, last) for count in (1, 3, 9)), noise(runs, last), sep="\n")
    results = Results(args.results, args.curves, [args.orders, args.slots, args.trials])
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
    print(*table(outcomes, compute, BASELINE), sep="\n")
    draw(
        outcomes, compute, runs=args.trials, best=values[0], banded=(BASELINE, DEFAULT),
        file=args.plot,
    )  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("curves", type=Path, help="a file of learning_curves.py")
    parser.add_argument("--orders", type=int, default=50, help="searches of each policy")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--trials", type=int, default=60, help="full runs that the compute is for")
    parser.add_argument("--policies", nargs="+", default=[*POLICIES], choices=[*POLICIES])
    parser.add_argument("--plot", type=Path, default=FOLDER / "search_policies.png")
    parser.add_argument("--results", type=Path, help="outcomes; kept, and not computed again")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
