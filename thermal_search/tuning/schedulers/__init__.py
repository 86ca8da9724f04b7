"""The schedulers of --scheduler: which trials stop early, or continue from others."""

from ray.tune.schedulers import FIFOScheduler

from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.schedulers.asha import ASHA
from thermal_search.tuning.schedulers.hyperband import PerArchitectureHyperband
from thermal_search.tuning.schedulers.median import PerArchitectureMedian
from thermal_search.tuning.schedulers.pbt import PopulationScheduler
from thermal_search.tuning.schedulers.per_architecture import PerArchitectureScheduler
from thermal_search.tuning.settings import Scheduler

SCHEDULERS: dict[Scheduler, type[PerArchitectureScheduler]] = {
    "asha": ASHA,
    "hyperband": PerArchitectureHyperband,
    "median": PerArchitectureMedian,
}
"""Those that stop trials."""


def build_scheduler(record: SearchRecord) -> FIFOScheduler:
    """The scheduler of a search, filled from its record. With `none`, and with two objectives,
    which these cannot compare by, every trial runs to its end."""
    scheduler = SCHEDULERS.get(record.plan.scheduler)
    if record.objective.has_two_objectives:
        return FIFOScheduler()
    if record.plan.scheduler == "pbt":
        return PopulationScheduler(record)
    return scheduler(record) if scheduler else FIFOScheduler()
