"""The record of a search: O/summary.json, current while the search runs, whole at any moment."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["running", "completed", "stopped", "diverged", "failed"]


@dataclass
class TrialRecord:
    """One trial, as a reader of summary.json sees it."""

    id: str
    architecture: str
    parameters: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """`images` shown and the metric's value, by evaluation."""

    status: Status = "running"
    reason: str = ""
    images: int = 0
    seconds: float = 0.0
    checkpoint: str | None = None
    """Its best generator, relative to the output folder; None before the first evaluation."""

    def best_score(self, metric: str) -> float | None:
        return min((item[metric] for item in self.history), default=None)


class SearchRecord:
    """Every trial of a search. Each change is written before the search goes on."""

    def __init__(self, output: Path, metric: str, features: str) -> None:
        self.output, self.metric, self.features = output, metric, features
        self.trials: dict[str, TrialRecord] = {}

    @classmethod
    def load(cls, output: Path) -> "SearchRecord":
        """Reads O/summary.json; FileNotFoundError where there is none."""
        content = json.loads((output / "summary.json").read_text())
        record = cls(output, content["metric"], content["features"])
        record.trials = {trial["id"]: TrialRecord(**trial) for trial in content["trials"]}
        return record

    def save(self) -> None:
        content = {
            "metric": self.metric,
            "features": self.features,
            "trials": [asdict(trial) for trial in self.trials.values()],
            "best": best.id if (best := self.best) else None,
        }
        write_atomically(self.output / "summary.json", json.dumps(content, indent=2) + "\n")

    @property
    def best(self) -> TrialRecord | None:
        """The trial with the lowest evaluation."""
        return next(iter(self.ranking()), None)

    def ranking(self) -> list[TrialRecord]:
        """The trials that were evaluated, the best first."""
        scored = [
            (score, trial)
            for trial in self.trials.values()
            if (score := trial.best_score(self.metric)) is not None
        ]
        return [trial for _, trial in sorted(scored, key=lambda item: item[0])]

    def start(self, id: str, architecture: str, parameters: Mapping[str, Any]) -> TrialRecord:
        """A trial begins, or goes on after a crash with what it had."""
        trial = self.trials.setdefault(id, TrialRecord(id, architecture, dict(parameters)))
        trial.status, trial.reason = "running", ""
        self.save()
        return trial

    def evaluate(self, id: str, result: Mapping[str, Any]) -> bool:
        """Takes in an evaluation; False when it is known already (told again after a crash)."""
        trial = self.trials[id]
        if result["images"] <= trial.images:
            return False
        entry = {"images": result["images"], self.metric: result[self.metric]}
        trial.history.append(entry)
        trial.images, trial.seconds = result["images"], result["seconds"]
        trial.checkpoint = f"trials/{id}/best.pt"
        self.save()
        return True

    def end(self, id: str, status: Status, reason: str) -> None:
        self.trials[id].status, self.trials[id].reason = status, reason
        self.save()

    def forget_all_but(self, ids: Iterable[str]) -> list[str]:
        """Drops trials the scheduler lost in a crash before they were evaluated; returns them."""
        known = set(ids)
        lost = [id for id in self.trials if id not in known]
        for id in lost:
            del self.trials[id]
        if lost:
            self.save()
        return lost


def write_atomically(path: Path, text: str) -> None:
    """A reader sees the old file or the new one, never a part."""
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
