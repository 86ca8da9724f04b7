"""The search as a study of Optuna that others can open, such as optuna-dashboard.

It is written from the record and never read for a decision: the search proposes from a study of its
own (see `trial_study`).
"""

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import optuna
from optuna.storages import BaseStorage, JournalStorage, get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import LOCK_FILE_SUFFIX
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from thermal_search.errors import SearchError
from thermal_search.storage import Location
from thermal_search.tracking.store import without_password
from thermal_search.tuning.record import SearchRecord
from thermal_search.tuning.slots.messages import TrialConfig
from thermal_search.tuning.summary import TrialRecord
from thermal_search.tuning.trial_study import STATES

JOURNAL = "optuna-journal.log"
LOCK_HELD_S = 30.0
"""Longest time that a process holds Optuna's lock of the journal: each write takes an instant."""


class SharedStudy:
    """Writes trials to Optuna's storage as they change, in a thread of its own.

    A storage that fails costs the search nothing: the next time that the search resumes, the study
    is brought up to date.
    """

    def __init__(
        self, record: SearchRecord, storage: BaseStorage, warn: Callable[[str], None]
    ) -> None:
        self.record, self.storage, self.warn = record, storage, warn
        self.space = record.plan.search_space()
        self.has_failed = False
        self.written: dict[str, int] = {}
        """Optuna's id of each trial; of one that was written anew, that of the latest."""

        self.entries: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.entries.put(self._open)
        # A daemon: a storage that never answers must not keep a finished search from ending.
        self.thread = threading.Thread(target=self._write_all, name="shared_study", daemon=True)
        self.thread.start()
        for trial in record.trials.values():
            self.update(trial)

    def update(self, trial: TrialRecord) -> None:
        """Writes a trial as it is now."""
        if self.has_failed:
            return
        copy = trial.model_copy(update={"history": [*trial.history]})
        self.entries.put(lambda: self._write(copy))

    def close(self, timeout_s: float) -> None:
        """Waits until everything is written or the storage has failed, at most `timeout_s`
        seconds."""
        self.entries.put(None)
        self.thread.join(timeout_s)
        if self.thread.is_alive():
            self.has_failed = True
            self.warn(
                f"The study for Optuna lacks the latest changes, because its storage did not take "
                f"them within {timeout_s:.0f} s. It is written again when the search resumes."
            )

    def _write_all(self) -> None:
        while (entry := self.entries.get()) and not self.has_failed:
            try:
                entry()
            except Exception as error:  # each kind of storage has errors of its own
                if not self.has_failed:
                    self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.has_failed = True
        reason = without_password(" ".join(str(error).split()))[:200]
        self.warn(
            f"The study for Optuna cannot be written ({type(error).__name__}: {reason}). The "
            "search continues without it, and writes it again when it resumes."
        )

    def _open(self) -> None:
        plan, axes = self.record.plan, self.record.objective.axes
        study = optuna.create_study(
            study_name=study_name(self.record),
            storage=self.storage,
            directions=[StudyDirection.MINIMIZE] * len(axes),
            load_if_exists=True,
        )
        study.set_metric_names([str(axis) for axis in axes])
        study.set_user_attr("output", plan.output.name)
        self.study_id = self.storage.get_study_id_from_name(study.study_name)
        for trial in self.storage.get_all_trials(self.study_id, deepcopy=False):
            if id := trial.user_attrs.get("id"):
                self.written[id] = trial._trial_id  # pyright: ignore[reportPrivateUsage]

    def _write(self, trial: TrialRecord) -> None:
        storage = self.storage
        id = self.written.get(trial.id)
        if id is None or self._has_changed(storage.get_trial(id), trial):
            id = self.written[trial.id] = self._add(trial)
        frozen = storage.get_trial(id)
        if frozen.state.is_finished():
            return
        for count in range(len(frozen.intermediate_values) + 1, len(trial.history) + 1):
            values = self.record.objective_after(trial, count)
            if len(values) == 1:  # Optuna has no intermediate values of two objectives
                images = trial.history[count - 1].images
                storage.set_trial_intermediate_value(id, images, values[0])
        state, values = self._end_of(trial)
        if state is TrialState.FAIL:
            storage.set_trial_user_attr(id, "reason", trial.reason)
        if state.is_finished():
            storage.set_trial_state_values(id, state, values)

    def _end_of(self, trial: TrialRecord) -> tuple[TrialState, list[float] | None]:
        """The state of a trial as Optuna's users see it, and its values if it has any."""
        state = STATES[trial.status]
        if state is TrialState.RUNNING:
            return state, None
        if state is TrialState.COMPLETE and trial.status != "completed":
            return TrialState.FAIL, None
        # One that the clock has ended may have no evaluation.
        return state, self.record.objective_values(trial) if trial.history else None

    def _has_changed(self, frozen: FrozenTrial, trial: TrialRecord) -> bool:
        """Whether a trial went on after it had ended, as with more --hours: Optuna changes no
        trial that has ended. One outside of the search space is not followed."""
        if not frozen.state.is_finished() or not frozen.distributions:
            return False
        state, values = self._end_of(trial)
        if state is not frozen.state or (values is None) != (frozen.values is None):
            return True
        return values is not None and not np.allclose(values, frozen.values, rtol=1e-9, atol=0)

    def _add(self, trial: TrialRecord) -> int:
        """Adds a trial, with the number that it has in the search unless it was added before."""
        storage = self.storage
        while storage.get_n_trials(self.study_id) < trial.number:
            storage.create_new_trial(self.study_id, create_trial(state=TrialState.FAIL))
        point = self.space.flatten(TrialConfig(trial.architecture, trial.proposed))
        parameters, distributions = point or ({}, {})
        new = create_trial(
            state=TrialState.RUNNING if point else TrialState.FAIL,
            params=parameters,
            distributions=distributions,
            user_attrs={"id": trial.id},
        )
        return storage.create_new_trial(self.study_id, new)


def study_name(record: SearchRecord) -> str:
    """The name of a search's study: two searches may share a storage."""
    return f"{record.output.name} {record.plan.id[:8]}"


def open_storage(output: Location, url: str | None) -> BaseStorage | None:
    """Optuna's storage at `url`, by default a journal in the output folder; None without `url` if
    the output is in a bucket, which cannot hold a journal.

    A damaged journal is set aside: without `url`, it is for the owner of the folder to call. Raises
    SearchError if the storage at `url` cannot be used, and OSError if the disk refuses.
    """
    if url:
        try:
            return get_storage(url)
        except Exception as error:  # each kind of storage has errors of its own
            reason = without_password(" ".join(str(error).split()))[:200]
            raise SearchError(
                f"--storage must be a database that Optuna can use, such as "
                f"postgresql://user@host/optuna, but this one cannot be "
                f"({type(error).__name__}: {reason}): check its address and its driver, or leave "
                "it out."
            ) from None
    if output.local is None:
        return None
    journal = output.local / JOURNAL
    _remove_old_lock(journal)
    try:
        storage = JournalStorage(JournalFileBackend(str(journal)))
        storage.get_all_studies()
    except OSError:
        raise  # the disk refuses; the file may be whole
    except Exception:  # any, from a damaged file
        aside = journal.with_name(f"{JOURNAL}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        journal.rename(aside)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    return storage


def _remove_old_lock(journal: Path) -> None:
    """Removes the lock that a killed process has left. For one that leads nowhere, because the
    folder has moved, Optuna would wait without end."""
    lock = journal.with_name(f"{JOURNAL}{LOCK_FILE_SUFFIX}")
    with contextlib.suppress(FileNotFoundError):
        if not lock.exists() or time.time() - lock.lstat().st_mtime > LOCK_HELD_S:
            lock.unlink()
