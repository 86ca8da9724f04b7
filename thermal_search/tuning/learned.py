"""--learn-from: what a search takes over from an earlier one, in OUTPUT/learned.json.

It is written before the first trial and never again, so that a search that resumes knows what it
knew, wherever the earlier search is now.
"""

import hashlib
import logging
from typing import Any, ClassVar, Literal

from thermal_search.documents import Document
from thermal_search.errors import SearchError
from thermal_search.tuning.first_settings import Setting
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.record import SearchRecord

FILE = "learned.json"

log = logging.getLogger(__name__)


class LearnedTrial(Setting):
    """A completed trial of the earlier search."""

    values: list[float]
    """What this search minimizes, on each axis."""


class Learned(Document):
    """What a search has learned before its first trial."""

    REMEDY: ClassVar[str] = "restore the file, or start a new search"

    version: Literal[1] = 1
    search: str
    """The id of the earlier search."""

    trials: list[LearnedTrial]
    """For the sampler: its numbers compare with those of this search."""

    first: list[Setting]
    """To try first: its numbers do not compare."""

    @property
    def digest(self) -> str:
        """SHA-256 of the file's content."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()


def learn(plan: SearchPlan) -> Learned | None:
    """What a new search learns, whose dataset and protocol are known; None without --learn-from.

    Raises SearchError if there is no search, or if it has no completed trial of an architecture
    that is searched.
    """
    if plan.learn_from is None:
        return None
    earlier = SearchRecord.load(plan.learn_from)
    space = plan.search_space()
    completed = [
        trial
        for trial in earlier.ranking()
        if trial.status == "completed" and trial.architecture in space.spaces
    ]
    usable = [trial for trial in completed if space.flatten(_setting(trial).config)]
    if not usable:
        raise SearchError(
            f"--learn-from {plan.learn_from} has no completed trial in the space of this search: "
            "search the same architectures and ranges, or leave it out."
        )
    learned = Learned(search=earlier.plan.id, trials=[], first=[])
    # A number that no single setting has reached says nothing to a sampler.
    unchanged = [trial for trial in usable if not trial.exploits]
    difference = _difference(plan, earlier.plan)
    if not difference and not unchanged:
        difference = "only trials whose parameters changed while they trained"
    if difference:
        best = {trial.architecture: trial for trial in reversed(usable)}
        chosen = [trial for trial in usable if best[trial.architecture] is trial]
        learned.first = [_setting(trial) for trial in chosen]
        log.warning(
            "--learn-from %s has %s, so its numbers do not compare with those of this search: its "
            "best setting of each architecture is tried first.",
            plan.learn_from,
            difference,
        )
    else:
        unchanged.sort(key=lambda trial: trial.number)
        objective, last = plan.parsed_objective, plan.average_last
        learned.trials = [
            LearnedTrial(
                architecture=trial.architecture,
                parameters=trial.parameters,
                values=objective.mean_of_last([e.metrics for e in trial.history[-last:]], last),
            )
            for trial in unchanged
        ]
    return learned


def load_learned(plan: SearchPlan) -> Learned | None:
    """What the search had learned when it began; SearchError if the file is lost or damaged."""
    if not plan.learned_digest:
        return None
    file = plan.output / FILE
    try:
        learned = Learned.read_or_backup(file)
    except FileNotFoundError:
        raise SearchError(f"{file} is missing: {Learned.REMEDY}.") from None
    if learned.digest != plan.learned_digest:
        raise SearchError(
            f"{file} is not what the search began with (its SHA-256 differs from that in "
            f"search.json): {Learned.REMEDY}."
        )
    return learned


def _setting(trial: Any) -> Setting:
    return Setting(architecture=trial.architecture, parameters=trial.parameters)


def _difference(plan: SearchPlan, earlier: SearchPlan) -> str:
    """Why the numbers of the earlier search do not compare; empty if they do."""
    if plan.dataset_digest != earlier.dataset_digest:
        return "another dataset"
    if plan.protocol != earlier.protocol:
        return "another protocol"
    if earlier.is_calibrated or plan.needs_calibration:
        return "trials whose budgets follow from --hours"
    if plan.length_text != earlier.length_text:
        return f"trials of {earlier.length_text} instead of {plan.length_text}"
    return ""
