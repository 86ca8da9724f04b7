"""Which trials Ray Tune runs next: what the record holds unfinished, then new ones."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from ray.tune.experiment import Experiment, Trial
from ray.tune.experiment.config_parser import (
    _create_trial_from_spec,  # pyright: ignore[reportPrivateUsage]
    _make_parser,  # pyright: ignore[reportPrivateUsage]
)
from ray.tune.search import SearchAlgorithm

from thermal_search.tuning.budgets import Budgets
from thermal_search.tuning.course import config_of
from thermal_search.tuning.hours import SearchTime
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.proposals import Proposals
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.stopping import SearchStopper
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

Record = TypeVar("Record", bound=TrialRecord)


class TrialSource(SearchAlgorithm):
    """Gives Ray Tune one trial after another, no more at once than there are slots.

    The trials have the ids of the record, so that one that is resumed continues in its folder. Ray
    Tune pickles its search algorithm into its own files; there is nothing in them to read again.
    """

    def __init__(
        self, plan: SearchPlan, trials: Iterator[TrialRecord], slots: int, stopper: SearchStopper
    ) -> None:
        self.plan, self.trials, self.slots, self.stopper = plan, trials, slots, stopper
        self.running: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def add_configurations(self, experiments: Experiment | list[Experiment] | dict[str, Any]):
        assert isinstance(experiments, list)
        (experiment,) = experiments
        self.spec, self.parser = experiment.spec, _make_parser()

    def next_trial(self) -> Trial | None:
        if self._finished or len(self.running) >= self.slots:
            return None  # Ray Tune asks again
        record = None
        with self.stopper.on_storage_faults():  # a new trial is written before it starts
            record = next(self.trials, None)
        if record is None:
            self.set_finished()
            return None
        self.running.add(record.id)
        return _create_trial_from_spec(
            {**self.spec, "config": config_of(self.plan, record).to_tune()},
            self.parser,
            evaluated_params={},
            experiment_tag=record.id,
            trial_id=record.id,
        )

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        self.running.discard(trial_id)


def proposed_trials(
    record: SearchRecord, budgets: Budgets | None = None, time: SearchTime | None = None
) -> Iterator[TrialRecord]:
    """The trials of the search: unfinished ones, then as many new ones as it still lacks.

    `budgets`: of a search with equal compute. `time`: of a search with --hours.
    """
    yield from _unfinished(record.trials.values())
    plan = record.plan
    proposals = Proposals(record, plan.architectures)
    while len(record.trials) < plan.trials:
        if time and not time.may_start("trials"):
            time.close("trials")
            return
        number, config = proposals.propose()
        yield record.add(number, plan.fix_budget(config, budgets))


def retrainings(record: SearchRecord, time: SearchTime | None = None) -> Iterator[TrialRecord]:
    """The retrainings of the finalists, first every finalist with the first further seed.

    `time`: of a search with --hours.
    """
    yield from _unfinished(record.retrainings.values())
    finalists = record.finalists()
    for seed in record.retraining_seeds():
        for finalist in finalists:
            if not record.has_retraining(finalist, seed):
                if time and not time.may_start("retrainings", finalist.architecture):
                    time.close("retrainings")
                    return
                yield record.add_retraining(finalist, seed)


def stop_other_retrainings(record: SearchRecord) -> None:
    """Ends unfinished retrainings of trials that are finalists no more, because better trials were
    added to the search."""
    finalists = {trial.id for trial in record.finalists()}
    for retraining in _unfinished(record.retrainings.values()):
        if retraining.finalist not in finalists:
            record.end(retraining.id, "stopped", "its configuration is no longer a finalist")


def _unfinished(trials: Iterable[Record]) -> list[Record]:
    return [trial for trial in trials if trial.status in UNFINISHED]
