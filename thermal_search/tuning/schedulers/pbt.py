"""Population based training within each architecture (Jaderberg et al. 2017,
https://arxiv.org/abs/1711.09846), asynchronous.

A population is the trials of one architecture, whenever they run. Each time that a trial has shown
another `--perturb-every` evaluations' images it is compared with all others of its architecture
that came so far, at the same number of images, whether they still train or have ended. One in the
lowest quarter continues from the state that one of the upper quarter had there: so that its weights
have seen as many images as its own, its schedules continue where they are, and a retraining can
repeat how they were trained.
"""

import contextlib
import random
from typing import Any

from ray.tune.schedulers import FIFOScheduler

from thermal_search import checkpoint
from thermal_search.errors import StorageError
from thermal_search.tuning.exploits import ExploitRecord, changes_between
from thermal_search.tuning.population import Arrival, better_half, better_quarter, explore
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.samplers import seed_of
from thermal_search.tuning.schedulers.per_architecture import distinct_texts
from thermal_search.tuning.slots.messages import REPORT, TrialReport
from thermal_search.tuning.summary import UNFINISHED, TrialRecord

UNUSABLE = {"diverged", "failed"}
"""Trials with these ends are compared with, and not continued from."""


class PopulationScheduler(FIFOScheduler):
    """Decides who continues from whom, by the record alone. It stops no trial.

    An evaluation and what is decided by it are one change of the record: what the record has is
    never decided again.
    """

    def __init__(self, record: SearchRecord) -> None:
        super().__init__()
        self.record, self.plan = record, record.plan
        self.spaces = record.plan.search_space().spaces
        self.exploits: dict[str, ExploitRecord] = {}
        """By id: what was decided by a trial's evaluation, until it is in the record."""

        self.removed: set[tuple[str, int]] = set()
        """States that are not kept any more."""

        for architecture in {trial.architecture for trial in record.trials.values()}:
            self._remove_states(architecture)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it into files that are never read

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        record = self.record[trial.trial_id]
        report: TrialReport | None = result.get(REPORT)
        is_new = report and report.evaluation and report.evaluation.images > record.images
        # A trial that is not running ends by itself.
        exploit = self._decide(record, report) if report and is_new and _runs(result) else None
        if exploit:
            self.exploits[record.id] = exploit
        return self.CONTINUE

    def debug_string(self) -> str:
        return type(self).__name__

    def _decide(self, trial: TrialRecord, report: TrialReport) -> ExploitRecord | None:
        evaluation = report.evaluation
        assert evaluation
        shown = [*(item.images for item in trial.history), evaluation.images]
        points = {images: point for point, images in self._points(trial, shown).items()}
        if (point := points.get(evaluation.images)) is None:
            return None
        self._remove_states(trial.architecture)  # by what the record has until now
        value, *_ = self.record.objective_with(trial.id, evaluation)
        own = Arrival(trial.id, trial.number, len(shown), evaluation.images, value)
        others = [a for a in self._arrivals(trial.architecture, point) if a.trial != trial.id]
        donors = [donor for donor in better_quarter(own, others) if self._has_state(donor)]
        if not donors:
            return None
        seed = seed_of(self.plan.seed, trial.number, f" exploit {len(trial.exploits)}")
        donor = donors[random.Random(seed).randrange(len(donors))]
        return self._exploit(trial, own, donor, len(others) + 1, seed, evaluation.seconds)

    def _exploit(
        self,
        trial: TrialRecord,
        own: Arrival,
        donor: Arrival,
        count: int,
        seed: int,
        seconds: float,
    ) -> ExploitRecord:
        giver = self.record[donor.trial]
        space = self.spaces[trial.architecture]
        taken_over = giver.parameters_at(donor.images)
        parameters, explored = explore(space, taken_over, seed)
        changed = changes_between(trial.parameters, parameters)
        changes = [
            f"{name} {parameters[name]:.3g} instead of its {taken_over[name]:.3g}"
            for name in explored
        ]
        objective = str(self.record.objective.axes[0])
        own_text, donor_text = distinct_texts(own.value, donor.value)
        reason = (
            f"at {own.images:,} images its {objective} of {own_text} is in the lowest quarter of "
            f"{count} {trial.architecture} trials: continues from {donor.trial} ({objective} "
            f"{donor_text})" + (f" with {', '.join(changes)}" if changes else "")
        )
        return ExploitRecord(
            images=own.images,
            value=own.value,
            donor=donor.trial,
            donor_evaluation=donor.evaluation,
            donor_images=donor.images,
            donor_value=donor.value,
            trials=count,
            changed=changed,
            explored=explored,
            seed=seed,
            seconds=seconds,
            ancestors=giver.ancestors_until(donor.images),
            schedule=giver.schedule_until(donor.images),
            reason=reason,
        )

    def _points(self, trial: TrialRecord, shown: list[int]) -> dict[int, int]:
        """The images of a trial's evaluations that came first to a point, by its number."""
        points = self.plan.comparison_points(trial.budget)
        return points.arrivals(shown) if points else {}

    def _arrivals(self, architecture: str, point: int) -> list[Arrival]:
        """The evaluations in the record that came to a point."""
        found: list[Arrival] = []
        for trial in self.record.trials.values():
            if trial.architecture != architecture:
                continue
            shown = [item.images for item in trial.history]
            if images := self._points(trial, shown).get(point):
                count = shown.index(images) + 1
                value, *_ = self.record.objective_after(trial, count)
                found.append(Arrival(trial.id, trial.number, count, images, value))
        return found

    def _has_state(self, donor: Arrival) -> bool:
        trial = self.record[donor.trial]
        if trial.status in UNUSABLE:
            return False
        return checkpoint.is_kept(self.record.folder(trial), donor.images)

    def _remove_states(self, architecture: str) -> None:
        """Removes the states of those that are not in the better half of a point any more.

        Not the two latest of a trial, which its worker keeps for it, and not what an unfinished
        trial continues from.
        """
        trials = [t for t in self.record.trials.values() if t.architecture == architecture]
        needed = {
            (trial.exploits[-1].donor, trial.exploits[-1].donor_images)
            for trial in trials
            if trial.exploits and trial.status in UNFINISHED
        }
        for trial in trials:
            latest = [item.images for item in trial.history[-checkpoint.KEPT_STATES :]]
            needed |= {(trial.id, images) for images in latest}
        points = {p for t in trials for p in self._points(t, [e.images for e in t.history])}
        for point in points:
            came = self._arrivals(architecture, point)
            kept = {(a.trial, a.images) for a in better_half(came)} | needed
            for state in {(a.trial, a.images) for a in came} - kept - self.removed:
                id, images = state
                # What cannot be removed takes space, and no trial needs it.
                with contextlib.suppress(OSError, StorageError):
                    folder = self.record.folder(self.record[id])
                    checkpoint.remove(checkpoint.pending(folder, images))
                    self.removed.add(state)


def _runs(result: dict[str, Any]) -> bool:
    return result["status"] == "running"
