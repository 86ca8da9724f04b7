"""What simulated searches have found: statistics over their orders, as a table and as a plot."""

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt


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


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper one: values themselves, which may be infinite,
    so that none lies between a number and infinity."""
    ranked, last = sorted(values), len(values) - 1
    low, middle, high = (ranked[round(share * last)] for share in (0.25, 0.5, 0.75))
    return low, middle, high


def table(outcomes: dict[str, list[Outcome]], compute: float, baseline: str) -> Iterator[str]:
    """A row for each policy, compared with the policy `baseline` at full compute."""
    target = quartiles([outcome.at(compute) for outcome in outcomes[baseline]])[1]
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
    outcomes: dict[str, list[Outcome]],
    compute: float,
    *,
    runs: float,
    best: float,
    banded: Collection[str],
    file: Path,
) -> None:
    """The medians over the orders against the compute, as many mean full runs as `runs`; for the
    policies `banded` the quartiles too. `best`: of all settings."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    shares = [step / 300 for step in range(1, 301)]
    for name, searches in outcomes.items():
        rows = [quartiles([search.at(share * compute) for search in searches]) for share in shares]
        # Matplotlib leaves out what is not finite.
        low, middle, high = zip(*rows, strict=True)
        x = [share * runs for share in shares]
        (line,) = axes.plot(x, middle, label=name, linewidth=1.5)
        if name in banded:
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.axhline(best, color="gray", linestyle=":", label="best setting")
    axes.set_xlabel("compute, in mean full runs")
    axes.set_ylabel("best distance at full length (median)")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=100)
    plt.close(figure)


class Results:
    """Outcomes in a file, so that policies that were simulated before are not simulated again."""

    def __init__(self, file: Path | None, curves: Path, settings: Sequence[int]) -> None:
        """`curves`, `settings`: what the outcomes follow from."""
        content = f"{settings}".encode() + curves.read_bytes()
        self.file, self.key = file, hashlib.sha256(content).hexdigest()
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
