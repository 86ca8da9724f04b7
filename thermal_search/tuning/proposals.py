"""What a search tries next: the first settings, then what the sampler proposes."""

import itertools
import json
from collections.abc import Sequence

from thermal_search.tuning.learned import Learned, load_learned
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.samplers import SAMPLERS
from thermal_search.tuning.slots.messages import TrialConfig


class Proposals:
    """Proposes the configuration of each trial by its number.

    Keeps nothing that a resumed search would need: a proposal follows from the record, the seed of
    the search and the number of the trial, so that a search that was interrupted proposes what it
    would have proposed. First come the settings of --first, what --learn-from has found best and
    the published configuration of each architecture, then what the sampler proposes.
    """

    def __init__(self, record: SearchRecord, architectures: Sequence[str]) -> None:
        self.record, plan = record, record.plan
        self.space = plan.search_space(architectures)
        learned = load_learned(plan)
        self.first = self._first(learned)
        self.tried: set[str] = set()
        self.counted = 0
        """Trials of the record that are in `tried`."""

        told = learned.trials if learned else []
        self.sampler = SAMPLERS[plan.sampler](record, self.space, told)

    def _first(self, learned: Learned | None) -> list[TrialConfig]:
        plan = self.record.plan
        first = [setting.config for setting in plan.first_settings]
        first += [setting.config for setting in learned.first] if learned else []
        if not plan.no_published:
            first += [self.space.published(name) for name in self.space.spaces]
        return [config for config in first if config.architecture in self.space.spaces]

    def propose(self) -> tuple[int, TrialConfig]:
        """The number and the configuration of the next trial."""
        trials = self.record.trials.values()
        number = max((trial.number for trial in trials), default=-1) + 1
        for trial in itertools.islice(trials, self.counted, None):
            self.tried.add(_key(TrialConfig(trial.architecture, trial.proposed)))
        self.counted = len(trials)
        while self.first:
            if _key(self.first[0]) not in self.tried:
                return number, self.first[0]
            self.first.pop(0)
        return number, self.sampler.propose(number)


def _key(config: TrialConfig) -> str:
    """Equal for equal settings."""
    values = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in config.parameters.items()
    }
    return json.dumps([config.architecture, sorted(values.items())])
