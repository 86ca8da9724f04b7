"""The files of a search's record, read and checked."""

from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tuning.objective import Objective
from thermal_search.tuning.record_faults import fault_of, fault_of_baselines
from thermal_search.tuning.summary import BaselinesFile, RetrainingFile, TrialFile, TrialRecord

Phase = Literal["trials", "retrainings"]
"""What a run of Ray Tune trains: the trials of the search, or its finalists with further seeds.
Also the name of the folder that holds them."""

TRIAL_FILE = "trial.json"
TRIAL_FILES: dict[Phase, type[TrialFile]] = {"trials": TrialFile, "retrainings": RetrainingFile}
BASELINES_FILE = "baselines.json"
TIME_FILE = "time.json"
REPORT_FILE = "report.html"
"""What `thermal-search report` writes to the output."""

READERS = 32
"""Trial files that are read at the same time: in a bucket each takes a round trip."""


def read_baselines(output: Location, objective: Objective) -> BaselinesFile:
    """Those of the search in an output folder; empty if nothing has been evaluated. SearchError if
    the file and its backup are damaged."""
    path = output / BASELINES_FILE
    try:
        baselines = BaselinesFile.read_or_backup(path)
    except FileNotFoundError:
        return BaselinesFile(validation={}, test={})
    for split in (baselines.validation, baselines.test):
        if fault := fault_of_baselines(split, objective):
            raise SearchError(f"{path} is damaged ({fault}): {BaselinesFile.REMEDY}.")
    return baselines


def read_trials(
    output: Location, phase: Phase, objective: Objective, metric: str
) -> list[TrialRecord]:
    """The trials of a phase in the order of their numbers. A folder without a file of its trial is
    of one that was cut off before it began. SearchError if a file and its backup are damaged."""

    def read(folder: Location) -> TrialRecord | None:
        file = folder / TRIAL_FILE
        try:
            trial = TRIAL_FILES[phase].read_or_backup(file).trial
        except FileNotFoundError:
            return None
        if fault := fault_of(trial, folder.name, objective, metric):
            raise SearchError(f"{file} is damaged ({fault}): {TrialFile.REMEDY}.")
        return trial

    with ThreadPoolExecutor(READERS) as threads:
        trials = threads.map(read, (output / phase).list())
    return sorted(filter(None, trials), key=lambda trial: (trial.number, trial.id))
