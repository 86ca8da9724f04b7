"""The record of a search with what follows from it, each derived once."""

from collections.abc import Mapping, Sequence
from functools import cached_property

from thermal_search.tuning.analysis import Analysis, analyze
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.summary import FinalRanking, TrialRecord


class Results:
    """A record as it is now. The record must not change while this is in use."""

    def __init__(self, record: SearchRecord) -> None:
        self.record, self.plan, self.objective = record, record.plan, record.objective
        self.axes: Sequence[str] = [str(axis) for axis in record.objective.axes]
        """The names of what is minimized."""

    @cached_property
    def ranking(self) -> Sequence[TrialRecord]:
        """The evaluated trials, best first."""
        return self.record.ranking()

    @cached_property
    def values(self) -> Mapping[str, Sequence[float]]:
        """The objective on each axis, by evaluated trial."""
        return {trial.id: self.record.objective_values(trial) for trial in self.ranking}

    @cached_property
    def best(self) -> TrialRecord | None:
        return self.ranking[0] if self.ranking else None

    @cached_property
    def best_of_each(self) -> Mapping[str, TrialRecord]:
        """The best trial of each architecture, the best architecture first."""
        best: dict[str, TrialRecord] = {}
        for trial in self.ranking:
            best.setdefault(trial.architecture, trial)
        return best

    @cached_property
    def by_architecture(self) -> Mapping[str, Sequence[TrialRecord]]:
        """The evaluated trials of each architecture, best first."""
        groups: dict[str, list[TrialRecord]] = {name: [] for name in self.best_of_each}
        for trial in self.ranking:
            groups[trial.architecture].append(trial)
        return groups

    @cached_property
    def pareto_front(self) -> Sequence[str]:
        return self.record.pareto_front()

    @cached_property
    def final_ranking(self) -> FinalRanking | None:
        return self.record.final_ranking

    @cached_property
    def analyses(self) -> Mapping[str, Analysis]:
        """What the parameters did, by architecture with an evaluated trial."""
        return {name: analyze(self.record, name) for name in self.best_of_each}
