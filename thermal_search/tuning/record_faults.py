"""What the files of a record must have beyond their types, for a search to be resumed from them."""

from collections.abc import Mapping

from thermal_search.evaluation.baselines import TRIVIAL_BASELINE, Baselines
from thermal_search.tuning.objective import Objective
from thermal_search.tuning.settings import MAX_TRIALS
from thermal_search.tuning.summary import RetrainingRecord, TrialRecord

MAX_VALUE = 1e100
"""A larger metric is none, and sums of such numbers overflow."""


def trial_id(number: int) -> str:
    """The id of a trial of the search, and the name of its folder."""
    return f"{number:05d}"


def _is_trial_id(text: str) -> bool:
    return text.isdecimal() and text.isascii() and trial_id(int(text[:20])) == text


def retraining_id(finalist: str, seed: int) -> str:
    """The id of a finalist's retraining, and the name of its folder."""
    return f"{finalist}-seed-{seed}"


def fault_of(trial: TrialRecord, folder: str, objective: Objective, metric: str) -> str:
    """What is wrong with the trial in a folder of this name; empty if nothing is."""
    id = trial_id(trial.number)
    if isinstance(trial, RetrainingRecord):
        id = retraining_id(trial.finalist, trial.seed)
    if not trial.id == id == folder:
        return f"it is the file of {trial.id!r:.40}, number {trial.number!s:.20}"
    if not 0 <= trial.number < MAX_TRIALS:
        return f"number must be from 0 to {MAX_TRIALS - 1}"
    for exploit in trial.exploits:
        # The name of a folder follows from it.
        if not _is_trial_id(exploit.donor):
            return f"{exploit.donor!r:.40} is no trial to continue from"
    if trial.status == "completed" and not trial.history:
        return "a completed trial must have evaluations"
    needed = {*objective.keys, metric}
    for evaluation in trial.history:
        if fault := _fault_of_metrics(evaluation.metrics, needed):
            return fault
    tested = trial.test_metrics if isinstance(trial, RetrainingRecord) else {}
    return _fault_of_metrics(tested, objective.keys) if tested else ""


def fault_of_baselines(baselines: Baselines, objective: Objective) -> str:
    """What is wrong with the baselines of a split; empty if nothing is."""
    for metrics in baselines.values():
        if fault := _fault_of_metrics(metrics, set()):
            return fault
    compared = baselines.get(TRIVIAL_BASELINE)
    return "" if compared is None else _fault_of_metrics(compared, objective.keys)


def _fault_of_metrics(metrics: Mapping[str, float], needed: set[str]) -> str:
    for key in sorted(needed):
        if key not in metrics:
            return f"metrics must have {key}"
    for key, value in metrics.items():
        if abs(value) > MAX_VALUE:
            return f"{key[:40]!r} must be at most {MAX_VALUE:g}, not {value:g}"
    return ""
