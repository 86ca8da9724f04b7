"""How a search begins in its output folder, and begins again if it was cut off meanwhile.

OUTPUT/owner-TOKEN.json                 its claim, before anything else
OUTPUT/learned.json, calibration.json   what its trials follow from
OUTPUT/search.json                      its plan, last: from then on it can be resumed
"""

from thermal_search.atomic_file import UNFINISHED
from thermal_search.documents import Document, backup_of
from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tuning.budgets import Calibration
from thermal_search.tuning.learned import FILE as LEARNED_FILE
from thermal_search.tuning.learned import Learned
from thermal_search.tuning.ownership import PREFIX, Claim
from thermal_search.tuning.pace import CALIBRATION_FILE
from thermal_search.tuning.plan import FILE as PLAN_FILE
from thermal_search.tuning.plan import SearchPlan

BEFORE_THE_PLAN: dict[str, type[Document]] = {
    LEARNED_FILE: Learned,
    CALIBRATION_FILE: Calibration,
}


def holds_search(output: Location) -> bool:
    """Whether an output folder holds a plan, from which its search resumes."""
    plan = output / PLAN_FILE
    return plan.exists() or backup_of(plan).exists()


def require_new(output: Location) -> None:
    """SearchError unless a folder is empty, but for what a search that was cut off before its plan
    was written has left. Writes nothing."""
    _require_no_search(output)
    for file in output.list():
        if not _is_left_over(file):
            raise SearchError(
                f"{output} must be empty, but holds {file.name}, which is no file of a search that "
                "was cut off: pass another --output."
            )


def write_plan(
    plan: SearchPlan,
    *,
    resume: bool,
    learned: Learned | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Writes the plan of a search, and before it what a new one follows from. For the owner of the
    folder to call.

    Raises SearchError if another search has begun in the folder of a new one, OSError or
    StorageError if the disk or the store refuses.
    """
    output = plan.output
    if not resume:
        # What else is new in the folder since `require_new` may be this search's own: a database
        # that --storage or MLflow has made there.
        _require_no_search(output)
        for name in BEFORE_THE_PLAN:
            (output / name).delete()
            backup_of(output / name).delete()
    if learned:
        learned.write_with_backup(output / LEARNED_FILE)
    if calibration:
        calibration.write_with_backup(output / CALIBRATION_FILE)
    plan.save()


def _require_no_search(output: Location) -> None:
    if holds_search(output):
        raise SearchError(
            f"{output} must be empty, but is not: pass --resume to resume the search in it, "
            "or another --output."
        )


def _is_left_over(file: Location) -> bool:
    if UNFINISHED.fullmatch(file.name):
        return True
    kind = BEFORE_THE_PLAN.get(file.name.removesuffix(".bak"))
    if file.name.startswith(PREFIX):
        kind = Claim
    if kind is None:
        return False
    try:
        kind.read(file)
    except FileNotFoundError:
        pass  # a claim that was just given up
    except SearchError:
        return False
    return True
