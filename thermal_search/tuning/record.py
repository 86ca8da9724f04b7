"""The record of a search: O/summary.json, current while the search runs, whole at any moment."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from thermal_search.checkpoint import GENERATOR
from thermal_search.evaluation.baselines import TRIVIAL_BASELINE, Baselines
from thermal_search.storage import Location
from thermal_search.tuning.objective import Objective, front, parse_objective

Kind = Literal["trials", "retrainings"]
"""What the search tries, and the finalists' trainings with further seeds; also their folders."""

Status = Literal["running", "completed", "stopped", "diverged", "failed"]


@dataclass
class TrialRecord:
    """One trial, as a reader of summary.json sees it."""

    id: str
    architecture: str
    parameters: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """`images` shown and what was measured, by evaluation."""

    status: Status = "running"
    reason: str = ""
    images: int = 0
    seconds: float = 0.0
    checkpoint: str | None = None
    """Its last evaluated generator, relative to the output folder; None before there is one."""

    worth: dict[str, float] = field(default_factory=dict[str, float])
    """By what is minimized: its mean over the last evaluations. Empty before the first."""

    beats_inverted_grey: bool | None = None
    """None where the baselines are not known yet."""


@dataclass
class RetrainingRecord(TrialRecord):
    """A finalist's configuration, trained again with another seed."""

    configuration: str = ""
    """The trial whose parameters these are."""

    seed: int = 0
    test: dict[str, float] = field(default_factory=dict[str, float])
    """What was measured once on the test split, after the training had ended."""


class SearchRecord:
    """Every trial of a search. Each change is written before the search goes on."""

    def __init__(
        self,
        output: Location | Path,
        metric: str,
        features: str,
        *,
        objective: Objective,
        average_last: int,
        protocol: Mapping[str, Any],
    ) -> None:
        self.output, self.metric, self.features = Location.of(output), metric, features
        self.objective, self.average_last = objective, average_last
        self.protocol = dict(protocol)
        self.baselines: Baselines = {}
        self.test_baselines: Baselines = {}
        self.trials: dict[str, TrialRecord] = {}
        self.retrainings: dict[str, RetrainingRecord] = {}
        self.final_ranking: dict[str, Any] | None = None

    @classmethod
    def load(cls, output: Location | Path) -> "SearchRecord":
        """Reads O/summary.json; FileNotFoundError where there is none."""
        output = Location.of(output)
        content = json.loads((output / "summary.json").read_text())
        record = cls(
            output,
            content["metric"],
            content["features"],
            objective=parse_objective(content["objective"], content["features"]),
            average_last=content["average_last"],
            protocol=content["protocol"],
        )
        record.baselines, record.test_baselines = content["baselines"], content["test_baselines"]
        record.trials = {trial["id"]: TrialRecord(**trial) for trial in content["trials"]}
        record.retrainings = {
            trial["id"]: RetrainingRecord(**trial) for trial in content["retrainings"]
        }
        record.final_ranking = content["final_ranking"]
        return record

    def save(self) -> None:
        content = {
            "metric": self.metric,
            "features": self.features,
            "objective": self.objective.text,
            "average_last": self.average_last,
            "protocol": self.protocol,
            "baselines": self.baselines,
            "test_baselines": self.test_baselines,
            "trials": [asdict(trial) for trial in self.trials.values()],
            "best": best.id if (best := self.best) else None,
            "front": self.front(),
            "retrainings": [asdict(trial) for trial in self.retrainings.values()],
            "final_ranking": self.final_ranking,
        }
        (self.output / "summary.json").write_text(json.dumps(content, indent=2) + "\n")

    @property
    def best(self) -> TrialRecord | None:
        """The first of the ranking; of a front, the one that is lowest on its first axis."""
        return next(iter(self.ranking()), None)

    def ranking(self) -> list[TrialRecord]:
        """The trials that were evaluated, the best first: those that used their whole budget, then
        those that did not, whose few evaluations may be lucky ones."""
        evaluated = [trial for trial in self.trials.values() if trial.history]
        return sorted(evaluated, key=lambda trial: (not _is_whole(trial), self.worth(trial)))

    def front(self) -> list[str]:
        """The trials that no other is better than, where two measures are traded; else none. Only
        those that used their whole budget compete, once there are any."""
        if not self.objective.has_two_objectives:
            return []
        ranking = self.ranking()
        whole = [trial for trial in ranking if _is_whole(trial)]
        return front({trial.id: self.worth(trial) for trial in whole or ranking})

    def worth(self, trial: TrialRecord) -> list[float]:
        """What a trial is worth on each axis; empty before its first evaluation."""
        return self.objective.worth(trial.history, self.average_last)

    def mean(self, trial: TrialRecord, key: str) -> float:
        """A metric's mean over the evaluations that count."""
        recent = [item[key] for item in trial.history[-self.average_last :]]
        return sum(recent) / len(recent)

    def start(self, id: str, architecture: str, parameters: Mapping[str, Any]) -> None:
        """A trial begins, or goes on after a crash with what it had."""
        trial = self.trials.setdefault(id, TrialRecord(id, architecture, dict(parameters)))
        trial.status, trial.reason = "running", ""
        self.save()

    def start_retraining(
        self,
        id: str,
        architecture: str,
        parameters: Mapping[str, Any],
        *,
        configuration: str,
        seed: int,
    ) -> None:
        """The same for a finalist's training with a further seed."""
        new = RetrainingRecord(
            id, architecture, dict(parameters), configuration=configuration, seed=seed
        )
        trial = self.retrainings.setdefault(id, new)
        trial.status, trial.reason = "running", ""
        self.save()

    def evaluate(self, id: str, result: Mapping[str, Any]) -> bool:
        """Takes in an evaluation; False when it is known already (told again after a crash)."""
        trial = self[id]
        if result["images"] <= trial.images:
            return False
        measured = {self.metric: result[self.metric], **result["beside"]}
        trial.history.append({"images": result["images"], **measured})
        trial.images, trial.seconds = result["images"], result["seconds"]
        kind = "retrainings" if isinstance(trial, RetrainingRecord) else "trials"
        trial.checkpoint = f"{kind}/{id}/{GENERATOR}"
        trial.worth = self.objective.named(self.worth(trial))
        self.baselines = result.get("baselines") or self.baselines
        if isinstance(trial, RetrainingRecord) and result.get("test"):
            trial.test, self.test_baselines = result["test"], result["test_baselines"]
        for known in (*self.trials.values(), *self.retrainings.values()):
            known.beats_inverted_grey = self._beats_inverted_grey(known)
        self.save()
        return True

    def end(self, id: str, status: Status, reason: str) -> None:
        self[id].status, self[id].reason = status, reason
        self.save()

    def forget_all_but(self, ids: Iterable[str], kind: Kind) -> list[str]:
        """Drops trials the scheduler lost in a crash before they were evaluated; returns them."""
        known = set(ids)
        ours = self.trials if kind == "trials" else self.retrainings
        lost = [id for id in ours if id not in known]
        for id in lost:
            del ours[id]
        if lost:
            self.save()
        return lost

    def __getitem__(self, id: str) -> TrialRecord:
        return self.retrainings[id] if id in self.retrainings else self.trials[id]

    def _beats_inverted_grey(self, trial: TrialRecord) -> bool | None:
        if not trial.history or TRIVIAL_BASELINE not in self.baselines:
            return None
        return self.worth(trial)[0] < self.objective.values(self.baselines[TRIVIAL_BASELINE])[0]


def _is_whole(trial: TrialRecord) -> bool:
    return trial.status == "completed"
