"""What a slot is told of a trial: with population based training also what changes in flight."""

from thermal_search.training.trial_plan import Course, StateOrigin
from thermal_search.tuning.exploits import later
from thermal_search.tuning.plan import SearchPlan
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.summary import RetrainingRecord, TrialRecord


def config_of(plan: SearchPlan, trial: TrialRecord) -> TrialConfig:
    """How a slot trains a trial from now on, by what the record has of it."""
    if isinstance(trial, RetrainingRecord):
        schedule = trial.retrained
        course = Course(changes=later(schedule)) if schedule else None
        parameters = schedule[0].parameters if schedule else trial.parameters
        return TrialConfig(trial.architecture, parameters, trial.seed, trial.budget, course)
    points = plan.comparison_points(trial.budget)
    if not points:
        return TrialConfig(trial.architecture, trial.parameters, None, trial.budget)
    schedule = trial.schedule
    course = Course(changes=later(schedule), origin=_origin(trial), points=points)
    return TrialConfig(trial.architecture, schedule[0].parameters, None, trial.budget, course)


def _origin(trial: TrialRecord) -> StateOrigin | None:
    if not trial.exploits:
        return None
    last = trial.exploits[-1]
    return StateOrigin(trial=last.donor, images=last.donor_images, seconds=last.seconds)
