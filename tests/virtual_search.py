"""A search in virtual time: trial source, scheduler, record and hours are real, training is not."""

import hashlib
import heapq
from dataclasses import dataclass, field
from types import SimpleNamespace

from thermal_search.checkpoint import COMMIT, pending
from thermal_search.training.trial_plan import TrialEvaluation
from thermal_search.tuning.hours import SearchTime
from thermal_search.tuning.schedulers import build_scheduler
from thermal_search.tuning.slots.messages import REPORT, TrialReport
from thermal_search.tuning.summary import OUT_OF_TIME
from thermal_search.tuning.time_left import TrialTimes, share_of, time_left
from thermal_search.tuning.trial_source import proposed_trials, retrainings

TICK_S = 10.0
"""Between two looks at the clock."""

EVALUATION_SHARE = 0.1
"""Of a full trial's seconds: evaluations."""


@dataclass
class VirtualSearch:
    """Runs a search through slots; `seconds` of a full trial by architecture."""

    record: object
    seconds: dict
    slots: int = 2
    done: object = share_of
    before: dict = field(default_factory=dict)
    started: float = 0.0
    ends_at: float = float("inf")
    """When the process is killed."""

    estimate_every: float = float("inf")
    """Seconds between two estimates."""

    def __post_init__(self):
        self.now = self.started
        self.times = TrialTimes(self.record, self.done, self.before)
        self.clock = None
        if self.record.plan.hours:
            self.clock = SearchTime(
                self.record, self.slots, self.times, clock=lambda: self.now, started=self.now
            )
        self.estimates = []
        """The time, and the estimate of the time left."""

        self.next_estimate = self.estimate_every

    def run(self):
        scheduler = build_scheduler(self.record)
        for phase in ("trials", "retrainings"):
            if self.clock:
                self.clock.begin(phase)
            trials = (
                proposed_trials(self.record, time=self.clock)
                if phase == "trials"
                else retrainings(self.record, self.clock)
            )
            if not self._run_phase(phase, trials, scheduler if phase == "trials" else None):
                return False
        if self.clock:
            self.clock.save()
        return True

    def _run_phase(self, phase, trials, scheduler):
        events, running = [], 0
        while True:
            while running < self.slots and (trial := next(trials, None)):
                running += 1
                self.record.start(trial.id)
                self._push(events, trial, len(trial.history) + 1)
            if not events:
                return True
            at, id, number = heapq.heappop(events)
            if self._runs_out(phase, at):
                for _, other, _ in [(at, id, number), *events]:
                    self.record.end(other, "stopped", OUT_OF_TIME)
                self.clock.close(phase)
                return True
            self.now = at
            if self.now > self.ends_at:
                return False
            trial = self.record[id]
            if self._evaluate(phase, trial, number, scheduler):
                running -= 1
            else:
                self._push(events, trial, number + 1)

    def _runs_out(self, phase, until):
        """Whether the phase ends by the clock before `until`."""
        while self.clock and self.now + TICK_S < until:
            self.now += TICK_S
            if self.clock.has_run_out(phase):
                return True
        return False

    def _push(self, events, trial, number):
        before = self._seconds(trial, number - 1)
        heapq.heappush(events, (self.now + self._seconds(trial, number) - before, trial.id, number))

    def _seconds(self, trial, number):
        """Until an evaluation of a trial: training by its cost, and evaluations."""
        images = min(number * trial.budget.evaluate_every, trial.budget.images)
        shown = trial.model_copy(update={"images": images})
        training = (1 - EVALUATION_SHARE) * self.times.done(shown)
        return self.seconds[trial.architecture] * (training + EVALUATION_SHARE * shown.share)

    def _evaluate(self, phase, trial, number, scheduler):
        """Whether the trial has ended."""
        images = min(number * trial.budget.evaluate_every, trial.budget.images)
        text = repr((trial.architecture, sorted(trial.parameters.items()), trial.id))
        if is_population := self.record.plan.scheduler == "pbt":
            # A trial that continues from another one's state is then about as good.
            text = repr((trial.architecture, trial.parameters["latent_size"]))
            state = pending(self.record.folder(trial), images)
            (state / COMMIT).write_text("[]")
        quality = hashlib.sha256(text.encode()).digest()[0]
        evaluation = TrialEvaluation(
            images=images,
            metrics={"fid": quality + 100 / number},
            losses={},
            seconds=self._seconds(trial, number),
            images_per_second=1.0,
            grid=None,
        )
        is_last = images >= trial.budget.images
        status = "completed" if is_last else "running"
        report = TrialReport(status=status, evaluation=evaluation)
        config = {"architecture": trial.architecture}
        tune_trial = SimpleNamespace(trial_id=trial.id, config=config)
        result = {"status": status, "images": images, REPORT: report}
        is_over = bool(self.clock and self.clock.is_over(phase, trial.id))
        decision = "CONTINUE"
        if scheduler:
            scheduler.on_trial_add(None, tune_trial)
            if is_last or is_over:
                scheduler.on_trial_complete(None, tune_trial, result)
            else:
                decision = scheduler.on_trial_result(None, tune_trial, result)
        exploit = scheduler.exploits.pop(trial.id, None) if scheduler and is_population else None
        self.record.add_evaluation(trial.id, report, exploit)
        if is_last:
            self.record.end(trial.id, "completed", "")
        elif is_over:
            self.record.end(trial.id, "stopped", OUT_OF_TIME)
        elif decision == "STOP":
            self.record.end(trial.id, "stopped", scheduler.stop_reasons[trial.id])
        if self.now >= self.next_estimate:
            self.next_estimate = self.now + self.estimate_every
            left = time_left(self.record, self.slots, phase, self.times)
            self.estimates.append((self.now, left))
        return is_last or is_over or decision == "STOP"
